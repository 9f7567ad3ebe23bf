"""A real installation for tests from outside: a folder, a database, and processes that may be killed."""

import atexit
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import requests

from tests.services import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a-password-for-the-tests"
LABELS = {"weather": "rain wind cloud storm snow sun", "food": "bread soup cheese apple rice plum"}
MODELS = """
- name: topic
  type: classic
  label_config: {labels: [weather, food]}
  policy: {gate: {max_drop: 0.2, min_samples: 10}, review: {audit: 0}}
"""


def sample_rows() -> str:
    """240 labelled rows as CSV."""
    rows = ["text,label"]
    for label, words in LABELS.items():
        names = words.split()
        rows += [f"{a} and {b} {n},{label}" for n in range(4) for a in names for b in names if a != b]
    return "\n".join(rows) + "\n"


class Installation:
    """Everything below `folder`; the database is SQLite there, or a new one on the server the tests run on.

    `database` and `redis` take the URL of a private server instead, `name` is what the new database is called.
    Whatever `start` began is gone after `close`.
    """

    def __init__(
        self, folder: Path, *, database: str = "", redis: str = "", models: str = MODELS, name: str = "", **extra: str
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[subprocess.Popen] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._models, self._is_elsewhere = models, bool(database)
        self._server = "" if database else os.environ.get("KALIMTAK_TEST_DATABASE_URL", "")
        self._database = name or f"kalimtak_{uuid.uuid4().hex[:12]}"
        if self._server:
            self._administer(f"CREATE DATABASE {self._database}")
            database = urlunsplit(urlsplit(self._server)._replace(path=f"/{self._database}"))
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("KALIMTAK_", "DJANGO_"))}
        self.environment = inherited | {
            "KALIMTAK_VAR": str(folder / "var"),
            "KALIMTAK_MODELS_STORE": str(folder / "store"),
            "KALIMTAK_ANONYMOUS": "1",
            "KALIMTAK_RATELIMIT_ANON": "100000/m",
            "DATABASE_URL": database or f"sqlite:///{folder / 'var' / 'kalimtak.sqlite3'}",
            "REDIS_URL": redis,
            "SECRET_KEY": "",
            "DEBUG": "0",
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "WEB_CONCURRENCY": "2",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            **extra,
        }
        (folder / "items.csv").write_text(sample_rows())
        self._write_models()

    def set_up(self, *, afresh: bool = False) -> "Installation":
        """`setup`, the classifiers of `models`, and Olga, who may do everything.

        Copied from an installation that the tests prepared once; `afresh`, or on a server of its own, by the commands.
        """
        if afresh or self._is_elsewhere:
            self.manage("setup")
            self.manage("createsuperuser", "--noinput", "--username", "olga", "--email", "olga@example.org")
        else:
            with prepared(self._server) as made:
                made._copy_to(self.folder, self._database)
            self._write_models()
        if afresh or self._is_elsewhere or self._models != MODELS:
            self.manage("sync_models", "--config", str(self.folder / "models.yaml"), "--prune")
        return self

    def _write_models(self) -> None:
        (self.folder / "models.yaml").write_text(self._models)

    def clone(self, folder: Path) -> "Installation":
        """The same, in another folder and database; nothing of the original may be running."""
        other = object.__new__(Installation)
        other.__dict__ = dict(self.__dict__) | {"folder": folder, "processes": [], "port": free_port()}
        other.url = f"http://127.0.0.1:{other.port}"
        other._database = f"kalimtak_{uuid.uuid4().hex[:12]}"
        database = f"sqlite:///{folder / 'var' / 'kalimtak.sqlite3'}"
        if self._server:
            database = urlunsplit(urlsplit(self._server)._replace(path=f"/{other._database}"))
        self._copy_to(folder, other._database)
        other.environment = self.environment | {
            "KALIMTAK_VAR": str(folder / "var"),
            "KALIMTAK_MODELS_STORE": str(folder / "store"),
            "DATABASE_URL": database,
            "PORT": str(other.port),
        }
        return other

    def _copy_to(self, folder: Path, database: str) -> None:
        """Everything in the folder, and on a server the database; static files, which nobody changes, as a link."""
        static = Path(self.environment["KALIMTAK_VAR"]) / "static"
        shutil.copytree(self.folder, folder, dirs_exist_ok=True, ignore=_left_behind)
        if static.is_dir():
            (folder / "var" / "static").symlink_to(static.resolve())
        if self._server:
            self._administer(f"DROP DATABASE IF EXISTS {database}")
            self._administer(f"CREATE DATABASE {database} TEMPLATE {self._database}")

    def manage(self, *arguments: str, code: int | None = 0, **extra: str) -> str:
        """What `manage.py …` printed; `code` is the exit status it must have (negative: a signal; None: any)."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment | extra,
            capture_output=True,
            text=True,
            timeout=280,
        )
        if code is not None:
            assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def python(self, source: str, **extra: str) -> str:
        """What a piece of Python prints with the installation's Django set up."""
        program = f"import django; django.setup()\n{source}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=self.environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"} | extra,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str, name: str = "", **extra: str) -> subprocess.Popen:
        """Start `manage.py …` in a session of its own; its output goes to `<folder>/<name>.log`."""
        return self._start([sys.executable, "manage.py", *arguments], name or arguments[0], extra)

    def start_web(self, **extra: str) -> subprocess.Popen:
        """gunicorn, as the Procfile has it, once it answers."""
        command = [sys.executable, "-m", "gunicorn", "-c", "kalimtak/gunicorn.py", "kalimtak.wsgi"]
        process = self._start(command, "web", extra)
        wait_until(lambda: requests.get(f"{self.url}/livez", timeout=2).ok, 60, what="a web server that answers")
        return process

    def start_worker(self, cluster: str = "default", **extra: str) -> subprocess.Popen:
        """django-q2's worker for a cluster."""
        return self.start(
            "qcluster", name=f"worker-{cluster or 'default'}", Q_CLUSTER_NAME=cluster or "default", **extra
        )

    def _start(self, command: list[str], name: str, extra: dict[str, str]) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | extra,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def own_processes(self) -> list[psutil.Process]:
        """Every living process of this installation, whoever started it: its folder is in their environment."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("KALIMTAK_VAR") == self.environment["KALIMTAK_VAR"]:
                    found.append(process)
        return found

    def kill_all(self) -> None:
        """The plug is pulled: SIGKILL to every process of this installation."""
        while alive := self.own_processes():
            for process in alive:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            for process in self.processes:
                process.poll()
            psutil.wait_procs(alive, timeout=5)

    def close(self) -> None:
        self.kill_all()
        if self._server:
            self._administer(f"DROP DATABASE IF EXISTS {self._database} WITH (FORCE)")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _administer(self, statement: str) -> None:
        server = urlunsplit(urlsplit(self._server)._replace(path="/postgres"))
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(statement)


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """What a copy does without."""
    return {name for name in names if name.endswith(".log") or (name == "static" and Path(folder).name == "var")}


# Prepared once -----------------------------------------------------------------------------------------------------


def prepared_database(folder: Path) -> str:
    """The name of the database that belongs to the folder of prepared installations."""
    return f"kalimtak_prepared_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


@cache
def prepared_folder() -> Path:
    """The passes of `tests.suite` share one, which it removes in the end; without a suite this process has its own."""
    if shared := os.environ.get("KALIMTAK_TEST_PREPARED"):
        return Path(shared)
    own = Path(tempfile.mkdtemp(prefix="kalimtak-prepared-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


@cache
def _made(server: str) -> Installation:
    """An installation with `MODELS` and Olga; whoever needs it first makes it."""
    root = prepared_folder()
    folder, database = root / ("postgresql" if server else "sqlite"), prepared_database(root)
    description = folder.with_suffix(".json")
    if description.exists():
        made = object.__new__(Installation)
        made.__dict__ = json.loads(description.read_text()) | {"folder": folder, "processes": []}
        return made
    made = Installation(folder, name=database).set_up(afresh=True)
    description.write_text(json.dumps({key: value for key, value in vars(made).items() if key not in _NOT_NOTED}))
    if server and "KALIMTAK_TEST_PREPARED" not in os.environ:
        atexit.register(made.close)
    return made


_NOT_NOTED = ("folder", "processes")


@contextmanager
def prepared(server: str) -> Iterator[Installation]:
    """One to copy from, on `server` or SQLite; meanwhile no other process makes or copies it."""
    with (prepared_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _made(server)
