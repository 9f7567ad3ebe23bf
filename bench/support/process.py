"""A function in a process of its own: its time and memory are nobody else's, and libraries are imported anew."""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CALL = """
import json, sys
from importlib import import_module
from pathlib import Path
from support.process import peak_memory
module, function = sys.argv[1].split(":")
outcome = getattr(import_module(module), function)(**json.loads(sys.argv[2]))
Path(sys.argv[3]).write_text(json.dumps(outcome | {"peak_mb": peak_memory()}))
"""
FOLDER = Path(__file__).resolve().parent.parent


def measured(function: str, *, environment: Mapping[str, str] = os.environ, **arguments: Any) -> dict[str, Any]:
    """What `module:function` returns for JSON `arguments`, with `peak_mb`, its largest resident memory in MB.

    `environment`: what the process finds in its, beside what it needs. Exits where the process fails; what it printed
    is on the terminal by then.
    """
    environment = dict(environment) | {"PYTHONPATH": f"{FOLDER.parent}{os.pathsep}{FOLDER}", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as scratch:
        told = Path(scratch, "outcome.json")
        command = [sys.executable, "-c", _CALL, function, json.dumps(arguments), str(told)]
        if subprocess.run(command, env=environment, cwd=FOLDER.parent, check=False).returncode:
            sys.exit(f"{function} failed for {arguments}")
        outcome: dict[str, Any] = json.loads(told.read_text())
    return outcome


def peak_memory() -> int:
    """Of this process, in MB; Linux counts in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
