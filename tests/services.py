"""Servers of a test's own, which it may stop, starve and slow down: PostgreSQL, Redis, a proxy before either."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until(condition, seconds=30.0, every=0.05, what="it"):
    """The first true value of `condition()`; an exception counts as not yet."""
    deadline, seen = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            seen = condition()
        except Exception as error:
            seen = error
        if seen and not isinstance(seen, Exception):
            return seen
        time.sleep(every)
    pytest.fail(f"{what} was not reached within {seconds:.0f} s; last seen: {seen!r}")


def postgres_binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


class PrivatePostgres:
    """A PostgreSQL server in a folder of its own, on a port that stays the same over restarts."""

    def __init__(self, *options: str) -> None:
        binaries = postgres_binaries()
        if binaries is None:
            pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
        self.binaries, self.port = binaries, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="kalimtak-postgres-"))
        self.options = ("fsync=off", "max_connections=60", "shared_buffers=32MB", *options)
        self.user = "postgres" if os.getuid() == 0 else ""  # the server refuses to run as root
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self.data, "-U", "kalimtak", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        self.start()
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as admin:
            admin.execute("CREATE DATABASE kalimtak")

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    @property
    def url(self) -> str:
        return self.url_of("kalimtak")

    def url_of(self, database: str) -> str:
        return f"postgres://kalimtak@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = " ".join(f"-c {option}" for option in (*self.options, f"unix_socket_directories={self.folder}"))
        arguments = f"-h 127.0.0.1 -p {self.port} {settings}"
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "30", "-l", str(self.folder / "log"), "-o", arguments, "start")

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends every session in order, `immediate` is a crash."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "30", "-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def close(self) -> None:
        with suppress(subprocess.CalledProcessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        prefix = ["runuser", "-u", self.user, "--"] if self.user else []
        # To a file: a started server keeps what it inherits, and a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [*prefix, str(self.binaries / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
            if done.returncode:
                output.seek(0)
                raise subprocess.CalledProcessError(done.returncode, program, output.read().decode(errors="replace"))


class PrivateRedis:
    """A Redis server that keeps nothing on disk, on a port that stays the same over restarts."""

    def __init__(self, *options: str) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        self.port, self.options = free_port(), options
        self.folder = Path(tempfile.mkdtemp(prefix="kalimtak-redis-"))
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: self.client.ping(), what="a Redis server that answers")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def freeze(self) -> None:
        """Keep the connections open and answer nothing, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)


class FaultProxy:
    """Stands between a client and a TCP server: delays every block by `delay` seconds, or cuts all connections."""

    def __init__(self, port: int) -> None:
        self.target, self.delay, self.refuses = port, 0.0, False
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every open connection."""
        pairs, self._pairs = self._pairs, []
        for side in pairs:
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._pairs += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(65_536):
                time.sleep(self.delay)
                sink.sendall(block)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
