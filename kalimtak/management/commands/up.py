"""`manage.py up`: the whole installation in one terminal, for a laptop or a trial."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil
from django.conf import settings
from django.core.management.base import CommandParser

from kalimtak.core import jobs, reaper
from kalimtak.core.commands import KalimtakCommand
from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import Job
from kalimtak.core.owners import owner_is_dead
from kalimtak.schedules import reaper_hurry

GRACE_SECONDS = 20.0
RESTART_SECONDS = 2.0
COLOURS = ("36", "33", "35", "34")


class Command(KalimtakCommand):
    help = "Starts the web server and the workers of the Procfile; Ctrl-C stops them in order, trainings checkpoint."
    example = "PORT=8080 manage.py up"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--procfile", type=Path, default=settings.BASE_DIR / "Procfile", help="default: Procfile")

    def handle(self, *args: Any, **options: Any) -> None:
        commands = read_procfile(options["procfile"])
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        processes = {name: Supervised(name, command, index) for index, (name, command) in enumerate(commands.items())}
        reaper.reap()  # takes up what an earlier stop or crash left
        reaper_hurry()
        threading.Thread(target=self.announce, args=(stop,), daemon=True).start()
        while not stop.wait(0.2):
            for process in processes.values():
                process.restart_if_gone()
        self.stdout.write("\nStopping: requests drain, a running training checkpoints …")
        stop_all(list(processes.values()))
        self.stdout.write("Stopped.")

    def announce(self, stop: threading.Event) -> None:
        """Say where things are as soon as the web server is ready."""
        host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "8000"
        address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 (compared, not bound)
        while not stop.wait(0.2):
            try:
                with urllib.request.urlopen(f"{address}/livez", timeout=1):  # noqa: S310 (our own server)
                    break
            except OSError:
                continue
        lines = [f"Playground    {address}/", f"Admin         {address}/admin/"]
        demo = settings.KALIMTAK_VAR / "demo.json"
        if demo.is_file():
            lines.append(f"Credentials   {demo}")
        self.stdout.write("\n" + "\n".join(f"  {line}" for line in lines) + "\n  Ctrl-C stops everything.\n")
        self.stdout.flush()


def read_procfile(path: Path) -> dict[str, str]:
    """`name: command` lines; raises `InvalidInput` naming the line that is none."""
    if not path.is_file():
        raise InvalidInput(f"There is no {path}.")
    commands = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, command = line.partition(":")
        if not colon or not command.strip():
            raise InvalidInput(f"{path}, line {number}: expected `name: command`.")
        commands[name.strip()] = command.strip()
    return commands


class Supervised:
    """A process of the Procfile, started again when it ends by itself. Its lines are shown behind its name."""

    def __init__(self, name: str, command: str, index: int) -> None:
        self.name, self.command = name, command
        self.label = f"{name:>8} | "
        if sys.stdout.isatty():
            self.label = f"\x1b[{COLOURS[index % len(COLOURS)]}m{self.label}\x1b[0m"
        self.ended_at: float | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {self.command}"],
            cwd=settings.BASE_DIR,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the others in order
        )
        self.ended_at = None
        assert self.process.stdout is not None
        threading.Thread(target=self.show, args=(self.process.stdout,), daemon=True).start()

    def show(self, lines: IO[bytes]) -> None:
        for line in lines:
            sys.stdout.write(self.label + line.decode("utf-8", "replace"))
            sys.stdout.flush()

    def restart_if_gone(self) -> None:
        if self.process.poll() is None:
            return
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            print(f"{self.label}ended with {self.process.returncode}; starting it again", flush=True)  # noqa: T201
        elif time.monotonic() - self.ended_at > RESTART_SECONDS:
            self.start()


def stop_all(processes: list[Supervised]) -> None:
    """TERM to all and to the supervisors of this host, `GRACE_SECONDS` to finish, then KILL."""
    pids = supervisor_pids() | {pid for process in processes for pid in starting_supervisor_pids(process.process.pid)}
    for process in processes:
        process.process.terminate()
    for pid in pids:
        send(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        if all(process.process.poll() is not None for process in processes) and not any(map(lives, pids)):
            break
        time.sleep(0.1)
    for process in processes:
        send_group(process.process.pid, signal.SIGKILL)
    for pid in filter(lives, pids):
        send_group(pid, signal.SIGKILL)


def supervisor_pids() -> set[int]:
    """Supervisors of this host that hold a long job, which TERM gives back to the queue; short ones end by themselves.

    A `manage.py train` in another terminal holds its job, too, and is none of ours.
    """
    long_kinds = [name for name in settings.KALIMTAK_JOBS if jobs.kind_of(name).is_long]
    running = Job.objects.filter(state=Job.State.RUNNING, kind__in=long_kinds)
    try:
        owners = list(running.values_list("owner", flat=True))
    except jobs.DATABASE_AWAY:  # all else must be stopped even so
        return set()
    parts = [owner.split(":") for owner in owners if not owner_is_dead(owner)]
    pids = {int(part[1]) for part in parts if part[0] == settings.KALIMTAK_HOST and len(part) == 3}
    return {pid for pid in pids if is_supervisor(pid)}


def starting_supervisor_pids(worker: int) -> set[int]:
    """Supervisors below process `worker`, those included that have not claimed their job yet and so own none."""
    found = set()
    with suppress(psutil.Error):
        for process in psutil.Process(worker).children(recursive=True):
            if is_supervisor(process.pid):
                found.add(process.pid)
    return found


def is_supervisor(pid: int) -> bool:
    with suppress(psutil.Error):  # it ended meanwhile
        return "run_job" in psutil.Process(pid).cmdline()
    return False


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not owner_is_dead(f"{settings.KALIMTAK_HOST}:{pid}")


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def send_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
