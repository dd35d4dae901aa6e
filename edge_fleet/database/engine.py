"""Opening the fleet's database: SQLite by default, PostgreSQL by URL. Tables are in `store` and `identity_store`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from edge_fleet.errors import FleetError

Insert = Callable[[Any], Any]


def open_database(url: str, tables: MetaData, *, durable: bool = False) -> tuple[Engine, Insert]:
    """Return an engine and its dialect's `insert`, which knows conflicts; create the tables that are missing.

    With `durable`, what is committed survives a power cut; without, SQLite may lose the last transactions, which their
    senders send again. Raises FleetError for a URL that is none or needs another driver.
    """
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise FleetError(str(error), subject="db", hint="for example postgresql+psycopg://user@host/fleet") from error
    dialects: dict[str, Insert] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    if engine.dialect.name not in dialects:
        raise FleetError(f"{engine.dialect.name} is not supported; use SQLite or PostgreSQL", subject="db")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _preparation(durable))
    try:
        tables.create_all(engine)
    except DBAPIError as error:
        raise FleetError(f"cannot open the database: {error.orig}", subject="db") from error
    return engine, dialects[engine.dialect.name]


def _preparation(durable: bool) -> Callable[[Any, Any], None]:
    pragmas = ("journal_mode=WAL", f"synchronous={'FULL' if durable else 'NORMAL'}", "busy_timeout=10000")

    def prepare(connection: Any, _record: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    return prepare
