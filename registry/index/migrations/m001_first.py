"""The first schema. Derived tables can be rebuilt from the files; user tables cannot."""

import re

from sqlalchemy import Connection

STATEMENTS = (
    # derived from the files by inspecting and hashing
    """CREATE TABLE record (
        id VARCHAR(40) PRIMARY KEY,
        kind VARCHAR(20) NOT NULL,
        family VARCHAR(40),
        stem TEXT NOT NULL,
        data TEXT NOT NULL,
        created VARCHAR(40) NOT NULL
    )""",
    "CREATE INDEX record_stem ON record (stem)",
    """CREATE TABLE location (
        path TEXT PRIMARY KEY,
        record_id VARCHAR(40) NOT NULL,
        bytes BIGINT NOT NULL,
        device VARCHAR(24) NOT NULL,
        inode VARCHAR(24) NOT NULL,
        mtime_ns BIGINT NOT NULL,
        ctime_ns BIGINT NOT NULL,
        fingerprint VARCHAR(64),
        missing SMALLINT NOT NULL DEFAULT 0,
        turn BIGINT NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX location_record ON location (record_id)",
    "CREATE INDEX location_inode ON location (inode, bytes)",
    "CREATE INDEX location_fingerprint ON location (fingerprint)",
    """CREATE TABLE content (
        record_id VARCHAR(40) PRIMARY KEY,
        sha256 VARCHAR(64) NOT NULL,
        tensors_sha256 VARCHAR(64),
        content_sha256 VARCHAR(64),
        hashes TEXT NOT NULL,
        learned TEXT NOT NULL
    )""",
    "CREATE INDEX content_sha256 ON content (sha256)",
    "CREATE INDEX content_tensors ON content (tensors_sha256)",
    "CREATE INDEX content_content ON content (content_sha256)",
    """CREATE TABLE file_hash (
        device VARCHAR(24) NOT NULL,
        inode VARCHAR(24) NOT NULL,
        bytes BIGINT NOT NULL,
        mtime_ns BIGINT NOT NULL,
        ctime_ns BIGINT NOT NULL,
        hashes TEXT NOT NULL,
        learned TEXT NOT NULL,
        PRIMARY KEY (device, inode, bytes, mtime_ns, ctime_ns)
    )""",
    "CREATE INDEX file_hash_inode ON file_hash (inode)",
    # user: annotations by a person, or facts from the job that wrote the file
    """CREATE TABLE given (
        record_id VARCHAR(40) PRIMARY KEY,
        kind VARCHAR(20),
        family VARCHAR(40),
        licence TEXT,
        notes TEXT,
        parents TEXT,
        recipe TEXT,
        metadata TEXT
    )""",
    """CREATE TABLE given_name (
        name TEXT NOT NULL,
        record_id VARCHAR(40) NOT NULL,
        shelf VARCHAR(20) NOT NULL,
        current SMALLINT NOT NULL,
        turn BIGINT NOT NULL,
        PRIMARY KEY (name, record_id)
    )""",
    "CREATE INDEX given_name_record ON given_name (record_id)",
    """CREATE TABLE alias (
        name TEXT NOT NULL,
        alias TEXT NOT NULL,
        record_id VARCHAR(40) NOT NULL,
        PRIMARY KEY (name, alias)
    )""",
    "CREATE INDEX alias_record ON alias (record_id)",
    """CREATE TABLE label (
        record_id VARCHAR(40) NOT NULL,
        kind VARCHAR(10) NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (record_id, kind, value)
    )""",
)


# PostgreSQL would collate text by language; paths and hashes are queried by ranges of bytes.
BYTEWISE = re.compile(r"\b(TEXT|VARCHAR\(\d+\))")


def up(connection: Connection) -> None:
    """Make the tables."""
    for statement in STATEMENTS:
        if connection.dialect.name == "postgresql":
            statement = BYTEWISE.sub(r'\1 COLLATE "C"', statement)
        connection.exec_driver_sql(statement)
