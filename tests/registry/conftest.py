"""A Store of its own for each test, on each database, and a small embedded base."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from registry.store import Store
from tests.registry.made import diffusers_folder

ON_POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.fixture
def pocket(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded base: a diffusers folder with few tensors."""
    folder = diffusers_folder(tmp_path_factory.mktemp("pocket") / "pocket")
    monkeypatch.setenv("LORALOOM_POCKET", str(folder))
    return folder


@pytest.fixture(params=["sqlite", ON_POSTGRES])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The database that the test's stores lie in, also those of the programs it starts: a file in their home, or a schema of its own."""
    if request.param == "sqlite":
        yield "sqlite"
        return
    server = os.environ.get("LORALOOM_TEST_POSTGRES")
    if not server:
        pytest.fail("LORALOOM_TEST_POSTGRES names no server: postgresql+psycopg://user:password@127.0.0.1:5432/database")
    import sqlalchemy

    schema = f"test_{secrets.token_hex(6)}"
    engine = sqlalchemy.create_engine(server, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        monkeypatch.setenv("LORALOOM_INDEX", f"{server}?options={quote(f'-csearch_path={schema}')}")
        yield "postgres"
        connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def store(tmp_path: Path, pocket: Path, database: str) -> Iterator[Store]:
    """A Store in an empty home."""
    store = Store(tmp_path / "home")
    yield store
    store.close()
