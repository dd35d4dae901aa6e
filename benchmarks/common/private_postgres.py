"""A PostgreSQL server of one's own in a temporary folder, for benchmarks and tests, on a Unix socket.

PostgreSQL refuses to run as root; then it runs as the user `nobody`. Its programs are looked for on PATH and where
Debian puts them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLACES = ("/usr/lib/postgresql", "/usr/local/lib/postgresql")


@dataclass(frozen=True, kw_only=True)
class PrivatePostgres:
    """A running server. `socket` is the folder of its socket."""

    programs: Path
    socket: Path
    version: str
    user: str

    def database(self, name: str) -> str:
        """Create an empty database and return its SQLAlchemy URL."""
        import psycopg

        with psycopg.connect(host=str(self.socket), user=self.user, dbname="postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        return f"postgresql+psycopg://{self.user}@/{name}?host={self.socket}"


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None where they or the driver are not installed."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        return None
    found = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path is not None]
    for place in PLACES:
        found += sorted(Path(place).glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "pg_ctl").exists()), None)


@contextlib.contextmanager
def private_postgres() -> Iterator[PrivatePostgres | None]:
    """Run a server; None where it is not installed."""
    programs = find_programs()
    if programs is None:
        yield None
        return
    root = os.geteuid() == 0
    user = "nobody" if root else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder = Path(name)
        if root:
            folder.chmod(0o755)
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(*words: str) -> None:
            subprocess.run(words, check=True, user=user if root else None, cwd=name, stdout=subprocess.DEVNULL)

        run(str(programs / "initdb"), "-D", f"{name}/data", "-U", user, "-A", "trust", "--no-sync")
        options = f"-k {name} -c listen_addresses=''"
        control = (str(programs / "pg_ctl"), "-D", f"{name}/data", "-w", "-l", f"{name}/log")
        run(*control, "-o", options, "start")
        try:
            said = subprocess.run([str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True)
            yield PrivatePostgres(programs=programs, socket=folder, version=said.stdout.strip(), user=user)
        finally:
            run(*control, "-m", "immediate", "stop")
