"""The forward pass alone: tokenisation and onnxruntime, one thread per process, one process per core, all at once.

Nothing of ours is in it but how onnxruntime is set up: this is what a server could reach that cost nothing.
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from support.load import percentile
from support.process import measured

START = 4.0  # seconds until all processes are loaded and warm


def graph_of(version: Path) -> Path:
    """The graph that answers: int8 where training kept it."""
    int8 = version / "serving" / "model.int8.onnx"
    return int8 if int8.is_file() else version / "serving" / "model.onnx"


def ceiling(version: Path, bodies: str, seconds: float) -> dict[str, float]:
    """Texts a second of all cores together, `p50` and `p99` in seconds, and `cpu` seconds per text."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    begin = time.time() + START
    with ThreadPoolExecutor(cores) as pool:
        asked = [
            pool.submit(_elsewhere, version, bodies, begin=begin, seconds=seconds, first=index, step=cores)
            for index in range(cores)
        ]
        parts = [each.result() for each in asked]
    times = [took for part in parts for took in part["times"]]
    return {
        "rate": sum(part["answers"] / part["seconds"] for part in parts),
        "p50": percentile(times, 0.5),
        "p99": percentile(times, 0.99),
        "cpu": sum(part["cpu"] for part in parts) / sum(part["answers"] for part in parts),
        "processes": cores,
    }


def labels(version: Path, bodies: str) -> list[int]:
    """The index of the label that the raw graph gives each text."""
    found: list[int] = _elsewhere(version, bodies, begin=0.0, seconds=None)["labels"]
    return found


def _elsewhere(version: Path, bodies: str, **options: Any) -> dict[str, Any]:
    graph, tokenizer = graph_of(version), version / "serving" / "tokenizer.json"
    return measured("support.ceiling:forward", graph=str(graph), tokenizer=str(tokenizer), bodies=bodies, **options)


def forward(
    graph: str, tokenizer: str, bodies: str, begin: float, seconds: float | None, first: int = 0, step: int = 1
) -> dict[str, Any]:
    """In this process: answer every `step`th text over and over from the time `begin` on, or once without `seconds`."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    from registry.families.onnx_predictor import session_options

    session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    encoder = Tokenizer.from_file(tokenizer)
    encoder.no_padding()
    texts = [json.loads(line)["text"] for line in Path(bodies).read_text(encoding="utf-8").splitlines()[first::step]]

    def answer(text: str) -> int:
        encoding = encoder.encode(text)
        feeds = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        arrays = {name: np.array([values], dtype=np.int64) for name, values in feeds.items() if name in names}
        return int(session.run(None, arrays)[0][0].argmax())

    if seconds is None:
        return {"labels": [answer(text) for text in texts]}
    for text in texts[:50]:
        answer(text)
    if time.time() > begin:
        raise SystemExit("A process was not ready in time: the machine is too busy to be measured.")
    time.sleep(begin - time.time())
    times, number = [], 0
    spent, started = time.process_time(), time.perf_counter()
    now = started
    while now - started < seconds:
        answer(texts[number % len(texts)])
        number += 1
        now, before = time.perf_counter(), now
        times.append(now - before)
    return {"answers": number, "seconds": now - started, "cpu": time.process_time() - spent, "times": times}


def token_lengths(version: Path, texts: list[str]) -> list[int]:
    """How many tokens the model reads of each text."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(version / "serving" / "tokenizer.json"))
    encoder.no_padding()
    return [len(encoding.ids) for encoding in encoder.encode_batch(texts)]
