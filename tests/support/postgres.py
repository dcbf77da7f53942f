"""A private PostgreSQL for the tests: one cluster a run, on a socket of its own, and a schema a test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from support import require

__all__ = ["Cluster", "cluster"]

# PostgreSQL refuses to run as root; tests often do.
_USER: Final = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
_INSTALL: Final = "install the Debian package postgresql"
_FAST: Final = "-c listen_addresses='' -c max_connections=200 -c fsync=on -c jit=off"


class Cluster:
    """A running cluster.

    Attributes:
        folder: Of its data and its socket.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self._names = itertools.count()

    def database(self) -> str:
        """Make an empty place for tables; gives its URL."""
        name = f"d{next(self._names)}"
        self.run("psql", "-h", str(self.folder), "-U", "cloister", "-qc", f"CREATE SCHEMA {name}", "postgres")
        return f"postgresql://cloister@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"{_FAST} -k {self.folder}"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once."""
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the user that owns the cluster."""
        user = _USER if os.geteuid() == 0 else None
        subprocess.run(
            [self.programs / program, *arguments],
            user=user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Make a cluster, and take it away again; skips where there is no PostgreSQL."""
    require.module("psycopg", install="pip install 'cloister-host[postgres]'")
    found = shutil.which("initdb") or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None
    )
    if found is None:
        require.missing("PostgreSQL", install=_INSTALL)
    programs = Path(found).resolve().parent
    # Not below the folder of the tests: others may not enter that one, and sockets have short names.
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="cloister-pg-", dir=memory if memory.is_dir() else None))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER)
        made = Cluster(folder, programs)
        made.run("initdb", "-D", str(folder / "data"), "-U", "cloister", "-A", "trust", "-E", "UTF8", "-N")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)
