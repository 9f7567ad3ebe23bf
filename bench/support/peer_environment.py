"""The servers we are compared with: their packages in a virtual environment of their own, and how each is started."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.installation import end, wait_until_ready
from support.postgres import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "requirements-bench.txt"
SERVERS = Path(__file__).resolve().parent / "peer_servers"
WORKERS = 2


@dataclass(frozen=True)
class Peer:
    """A server by somebody else; `command` comes after `python`, {port} stands for the port."""

    name: str
    path: str
    health: str
    command: tuple[str, ...]


PEERS = (
    Peer(
        "FastAPI + pipeline",
        "/predict",
        "/health",
        (
            *("-m", "uvicorn", "fastapi_pipeline:app", "--app-dir", str(SERVERS), "--workers", str(WORKERS)),
            *("--port", "{port}", "--log-level", "warning"),
        ),
    ),
    Peer("LitServe", "/predict", "/health", (str(SERVERS / "litserve_batches.py"), "{port}")),
)


def peers_python(folder: Path, *, install: bool) -> Path | None:
    """The interpreter that has the peers' packages; None where they are not installed and shall not be."""
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    if not install:
        return None
    print(f"Installing {REQUIREMENTS.name} into {folder}: about a gigabyte, and some minutes.", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    stamp.write_text(wanted)
    return python


@contextmanager
def peer_serving(peer: Peer, python: Path, model: Path) -> Iterator[int]:
    """The port of the running server, each of whose workers computes with one thread."""
    port = free_port()
    command = [str(python), *(word.format(port=port) for word in peer.command)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KALIMTAK"))}
    environment |= {"BENCH_MODEL": str(model), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch, tempfile.TemporaryFile("w+") as log:
        process = psutil.Popen(command, env=environment, cwd=scratch, stdout=log, stderr=log)
        try:
            if not wait_until_ready(f"http://127.0.0.1:{port}{peer.health}", process, 120):
                log.seek(0)
                sys.exit(f"{peer.name} did not get ready.\n{log.read()[-2000:]}")
            yield port
        finally:
            end(process)
