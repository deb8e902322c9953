"""Records in a database and on the disk: SQLite or PostgreSQL, search, lineage, what a person said."""
