"""Python modules started by forking: the new process finds what this one has imported, and starts at once.

It is a process of its own in every other way: its own session where one is asked for, its own files and environment,
no descriptor but the three it was given. Importing scikit-learn for every trainer took most of the time of these tests.
"""

import inspect
import os
import runpy
import signal
import subprocess
import sys
import traceback
from typing import Any, NoReturn

from kalimtak.core import crashpoints

FORKED = ("training.runner", "registry.families.verify")
MOST_DESCRIPTORS = 4096
_SIGNATURE = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class ForkingPopen(subprocess.Popen):
    """Takes the place of `subprocess.Popen`; only `python -m MODULE …` for the modules of `FORKED` is forked."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        if list(args[:2]) != [sys.executable, "-m"] or args[2] not in FORKED:
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        asked = _SIGNATURE.bind(self, args, *rest).arguments
        ends = {number: asked[name] for number, name in enumerate(("p2cread", "c2pwrite", "errwrite"))}
        self.pid = os.fork()
        if self.pid == 0:
            _become(asked, ends)
        self._child_created = True
        self._close_pipe_fds(*(asked[name] for name in _PIPE_ENDS))  # type: ignore[attr-defined]


_PIPE_ENDS = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def _become(asked: dict[str, Any], ends: dict[int, int]) -> NoReturn:
    status = 1
    try:
        if asked["start_new_session"]:
            os.setsid()
        for caught in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(caught, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        moved = {number: os.dup(end) for number, end in ends.items() if end != -1}
        for number, end in moved.items():
            os.dup2(end, number)
        os.closerange(3, MOST_DESCRIPTORS)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, "rw"[n > 0], closefd=False) for n in range(3))
        os.chdir(asked["cwd"] or ".")
        if asked["env"] is not None:
            os.environ.clear()
            os.environ.update(asked["env"])
        crashpoints._passes.clear()
        status = _run(asked["args"][2], asked["args"][3:])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _run(module: str, arguments: list[str]) -> int:
    """As `python -m` does; the exit status."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
