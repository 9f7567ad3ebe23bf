"""TensorBoard over the runs: in the foreground, or beside one run and no longer than it.

`python -m training.board_server FOLDER PORT SUPERVISOR` is the second: a process of its own that ends with its
supervisor, however that ends. It listens on this machine alone. Knows nothing of Django.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from training.run_process import die_with

HOST = "127.0.0.1"
RELOAD_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parent.parent


class BoardFailed(Exception):
    """TensorBoard cannot be started; the message is one line that names the remedy."""


def serve(folder: Path, port: int) -> str:
    """Serve the runs below `folder` from a thread of this process; the address. Port 0 takes a free one.

    Raises `BoardFailed` where the port is taken or not ours to take.
    """
    from tensorboard import program

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tensorboard", "werkzeug"):  # they tell of every request and every look at the folder
        logging.getLogger(name).setLevel(logging.WARNING)
    board = program.TensorBoard()
    # load_fast starts another process, which would have to be ended, too; these files are small.
    board.configure(
        logdir=str(folder),
        host=HOST,
        port=port,
        load_fast="false",
        reload_interval=RELOAD_SECONDS,
        window_title="Kalimtak",
    )
    try:
        return str(board.launch())
    except program.TensorBoardPortInUseError as error:
        raise BoardFailed(port_is_taken(port)) from error
    except program.TensorBoardServerException as error:
        raise BoardFailed(f"TensorBoard cannot listen on port {port}: {error.msg}") from error


def port_is_taken(port: int) -> str:
    return f"Port {port} is in use, perhaps by another TensorBoard: open http://{HOST}:{port}/, or choose another port."


class BoardServer:
    """TensorBoard beside a run, for its supervisor. As a context manager it leaves no process behind.

    Never fails: where TensorBoard cannot be started, or ended by itself, `problem()` says why.
    """

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        self.url = f"http://{HOST}:{port}/"
        self._port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._problem = ""
        if _is_taken(port):
            self._problem = port_is_taken(port)
            return
        command = [sys.executable, "-m", "training.board_server", str(folder), str(port), str(os.getpid())]
        try:
            with log.open("wb") as stream:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=_ROOT, start_new_session=True
                )
        except OSError as error:
            self._problem = f"TensorBoard could not be started: {error.strerror}."

    def problem(self) -> str:
        """Why it does not run; empty while it does."""
        if not self._problem and self._process is not None and self._process.poll() is not None:
            said = self._log.read_text(encoding="utf-8", errors="replace").split("\n") if self._log.exists() else []
            last = next((line[:200] for line in reversed(said) if line.strip()), f"exit {self._process.returncode}")
            self._problem = f"TensorBoard ended by itself: {last}"
        return self._problem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def main(arguments: list[str]) -> int:
    folder, port, supervisor = arguments
    die_with(int(supervisor))
    try:
        serve(Path(folder), int(port))
    except BoardFailed as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
