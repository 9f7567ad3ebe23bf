"""Installations of our own: made in a folder, copied to another database, served by gunicorn as the Procfile does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support.console import ROOT
from support.datasets import PARTS, data_folder
from support.postgres import free_port

HELLO = "I went to the market this morning and it was a joy to see everyone there"
CALLS = """
import json, sys, django; django.setup()
from django.core.management import call_command
for words in json.loads(sys.argv[1]): call_command(*words)
"""


@dataclass
class Installation:
    """`folder` holds `var`, `store` and the API key; `database` is a URL, empty for SQLite in `var`."""

    folder: Path
    database: str = ""
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        environment = os.environ | {
            "KALIMTAK_VAR": str(self.folder / "var"),
            "KALIMTAK_MODELS_STORE": str(self.folder / "store"),
            "KALIMTAK_RATELIMIT_KEY": "100000000/m",  # counted, never reached
            "WEB_CONCURRENCY": os.environ.get("WEB_CONCURRENCY", str(os.cpu_count() or 1)),
            "DEBUG": "0",
        }
        for name in ("DATABASE_URL", "REDIS_URL"):
            environment.pop(name, None)
        return environment | ({"DATABASE_URL": self.database} if self.database else {}) | self.more

    @property
    def headers(self) -> dict[str, str]:
        key = (self.folder / "key").read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def version(self, slug: str, number: int) -> Path:
        return self.folder / "store" / slug / str(number)

    def manage(self, *commands: Sequence[str]) -> str:
        """Run management commands in one process, one after the other; returns what they printed."""
        environment = self.environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"}
        command = [sys.executable, "-c", CALLS, json.dumps([list(words) for words in commands])]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"The installation could not be made: {done.stderr.strip()}")
        return done.stdout

    def copy(self, folder: Path) -> "Installation":
        """The same in another folder: nothing that is done to it reaches the original."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("var", "store"):
            shutil.copytree(self.folder / name, folder / name)
        shutil.copy2(self.folder / "key", folder / "key")
        return Installation(folder)

    def copy_to_database(self, folder: Path, url: str) -> "Installation":
        """The same, with all rows but those of interactions in the empty database at `url`."""
        other = self.copy(folder)
        rows = str(folder / "rows.json")
        left_out = [f"--exclude={name}" for name in ("contenttypes", "auth.permission", "interactions")]
        self.manage(["dumpdata", "--natural-foreign", *left_out, "--output", rows])
        other.database = url
        other.manage(["migrate", "--verbosity", "0"], ["flush", "--noinput"], ["loaddata", rows])
        return other


def make_installation(
    folder: Path, classifiers: Sequence[str], *, rows: int | None = None, dataset: str = "sample", database: str = ""
) -> Installation:
    """An installation in `folder` with these demo classifiers trained and live, and an API key.

    They learn from `rows` (all) of the sample set; `emotion` learns from `dataset` where that is another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Installation(folder, database)
    commands = [["setup"]]
    for slug in classifiers:
        if slug == "emotion" and dataset != "sample":
            files = [(part, str(data_folder() / dataset / f"{part}.csv")) for part in PARTS]
            commands += [["import_dataset", file, "--classifier", slug, "--split", part] for part, file in files]
            commands += [["train", slug, "--set", "training_config.num_epochs=1", "--deploy"]]
        elif rows:
            commands += [
                ["make_sample_data", "--classifier", slug, "--rows", str(rows), "--output", str(folder)],
                ["import_dataset", str(folder / slug / "train.csv"), "--classifier", slug],
            ]
        commands += [["predict", slug, HELLO]]  # trains a version where there is none
    commands += [["create_api_key", "bench", "--scope", "predict"]]
    key = made.manage(*commands).split()[-1]
    (folder / "key").write_text(key + "\n", encoding="utf-8")
    return made


@dataclass
class Server:
    """A running gunicorn of an installation."""

    installation: Installation
    port: int
    process: psutil.Popen
    ready_seconds: float = 0.0
    host: str = "127.0.0.1"

    @property
    def environment(self) -> dict[str, str]:
        return self.installation.environment

    @property
    def headers(self) -> dict[str, str]:
        return self.installation.headers

    def memory(self) -> list[float]:
        """Resident megabytes of each process that answers."""
        return [each.memory_info().rss / 1e6 for each in self.process.children()]


@contextmanager
def serving(installation: Installation, **more: str) -> Iterator[Server]:
    """Its web server, ready; gone afterwards."""
    port = free_port()
    environment = installation.environment | {"PORT": str(port)} | more
    command = [sys.executable, "-m", "gunicorn", "-c", "kalimtak/gunicorn.py", "kalimtak.wsgi"]
    began = time.monotonic()
    # Its log is of use only where it does not start.
    with tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen(command, env=environment, cwd=ROOT, stderr=log)
        try:
            if not wait_until_ready(f"http://127.0.0.1:{port}/readyz", process):
                log.seek(0)
                sys.exit(f"The server did not get ready.\n{log.read()[-2000:]}")
            yield Server(installation, port, process, time.monotonic() - began)
        finally:
            end(process)


def wait_until_ready(url: str, process: psutil.Popen, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.02)
    return False


def end(process: psutil.Popen, seconds: float = 40.0) -> None:
    """Ask it to end, and end it and all below where it does not."""
    below = process.children(recursive=True) if process.is_running() else []
    process.terminate()
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        process.kill()
    for each in psutil.wait_procs(below, timeout=5)[1]:
        each.kill()
