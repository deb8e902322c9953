"""The index of records: SQLite or PostgreSQL, scanning, search, lineage, annotations."""
