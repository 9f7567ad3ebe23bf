"""A PostgreSQL server in a folder of its own, which may be stopped and started. It keeps its promises: fsync is on."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def postgres_binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest one there is."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return folders[0] if folders else None


class Postgres:
    name = "PostgreSQL, private"

    def __init__(self, binaries: Path, folder: str) -> None:
        self.binaries, self.folder = binaries, folder
        self.user = "postgres" if os.getuid() == 0 else ""  # the server refuses to run as root
        self.port = free_port()
        if self.user:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, pwd.getpwnam(self.user).pw_gid)
        self._run("initdb", "-D", f"{folder}/data", "-U", "kalimtak", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()

    @property
    def url(self) -> str:
        return f"postgres://kalimtak@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str) -> None:
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", mode, "stop")

    def restart(self, mode: str, away: float) -> None:
        self.stop(mode)
        time.sleep(away)
        self.start()

    def _run(self, program: str, *words: str) -> None:
        prefix = ["runuser", "-u", self.user, "--"] if self.user else []
        command = [*prefix, str(self.binaries / program), *words]
        nothing = subprocess.DEVNULL  # not a pipe: the server would keep it open
        subprocess.run(command, check=True, cwd=self.folder, stdout=nothing, stderr=nothing)


@contextmanager
def postgres(binaries: Path) -> Iterator[Postgres]:
    """A new server, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as folder:
        database = Postgres(binaries, folder)
        try:
            yield database
        finally:
            database.stop("immediate")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
