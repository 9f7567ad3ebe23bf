"""Whose process holds a job: `host:pid:start`."""

import os
from pathlib import Path

import psutil
from django.conf import settings


def this_process() -> str:
    """`host:pid:start` of this process; the start tells it from a later process with the same number."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> str:
    """`host:pid:start` of process `pid` of this host. Raises `psutil.NoSuchProcess` where there is none."""
    return f"{settings.KALIMTAK_HOST}:{pid}:{_start_of(pid)}"


def owner_is_dead(owner: str) -> bool:
    """True only where `owner` was a process of this host that certainly no longer runs."""
    host, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    if host != settings.KALIMTAK_HOST or not pid.isdigit():
        return False
    try:
        if psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE:
            return True
        return bool(start) and start != _start_of(int(pid))
    except psutil.NoSuchProcess:
        return True
    except (psutil.AccessDenied, PermissionError):  # of another user, who may hide it
        return False


def _start_of(pid: int) -> str:
    """When process `pid` started: on Linux in clock ticks since boot (proc(5), `starttime`).

    A time of day would not do: it is told from the boot on, and setting the clock moves that for a living process.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        return after_name.split()[19]
    except ProcessLookupError as error:  # it ended while its file was open
        raise psutil.NoSuchProcess(pid) from error
    except FileNotFoundError:  # no such process, or no Linux
        return f"{psutil.Process(pid).create_time():.0f}"
