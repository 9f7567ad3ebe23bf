"""Whose process holds a job: `host:pid:start`."""

import os

import psutil
from django.conf import settings


def this_process() -> str:
    """`host:pid:start` of this process; the start time tells it from a later process with the same number."""
    return f"{settings.KALIMTAK_HOST}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def owner_is_dead(owner: str) -> bool:
    """True only where `owner` was a process of this host that certainly no longer runs."""
    host, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    if host != settings.KALIMTAK_HOST or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return bool(started) and abs(process.create_time() - float(started)) > 2
    except psutil.NoSuchProcess:
        return True
