"""What a CUDA device makes of training and answering: times, the share spent in kernels, and that all paths work.

Fits the fine-tuned families with their default recipes on a set and judges them on its test part, takes three epochs of
adapters on a model of DistilBERT's size (random weights: this is about time), and goes where a CPU never does: fp16,
an 8-bit base model (where bitsandbytes is installed), a batch that the GPU's memory does not hold. Then the encoder
answers on the GPU (where onnxruntime-gpu is installed), held against its answers on the CPU. Every part has a process
of its own.

    python bench/cuda.py --dataset emotion --json cuda.json
    python bench/cuda.py --parts adapters kernels
    python bench/cuda.py --check
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import is_there
from support.process import measured

from registry.families.process_environment import training_environment

on_gpu = partial(measured, environment=training_environment() | {"KALIMTAK_DEVICE": "cuda"})


def main() -> None:
    options = arguments()
    found = measured("support.gpu:device")
    if not found["name"]:
        print("No CUDA device here: nothing is measured.")
        return
    if options.check or not is_there(options.dataset):
        options.dataset = "sample"
    print(f"{found['name']}, torch {found['torch']}, texts of `{options.dataset}`", flush=True)
    results: dict[str, Any] = {"device": found}
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as kept:
        for name in options.parts:
            results[name] = PARTS[name](options.dataset, Path(kept), options.check)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit("\n".join(faults(results)) or 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="emotion", help="a set of KALIMTAK_BENCH_DATA, or sample")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--check", action="store_true", help="few texts; without a CUDA device nothing happens")
    return parser.parse_args()


Part = Callable[[str, Path, bool], dict[str, Any]]
"""Measures on a data set, with a folder that later parts see; quickly where the third is true."""


def encoder(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """The default recipe, as `bench/accuracy.py` fits it; the artefact is kept for `serve`."""
    return _told("encoder", dataset, [], keep=str(kept / "encoder"))


def lora(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """The same of adapters."""
    return _told("lora", dataset, [])


def adapters(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """24,000 texts × 3 epochs of adapters on a model of DistilBERT's size."""
    texts = 1_000 if check else 24_000
    return on_gpu("support.gpu:tune_repeated", name="lora", texts=texts, assignments=_large(kept))


def unrecorded(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """As `adapters`, one epoch of fewer texts, each kernel started on its own rather than with all others of a step."""
    texts = 1_000 if check else 6_400
    once = [*_large(kept), "training_config.num_epochs=1"]
    return on_gpu("support.gpu:tune_repeated", name="lora", texts=texts, assignments=once, replayed=False)


def kernels(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """The share of the time in kernels while adapters learn as in `adapters`."""
    return on_gpu("support.gpu:kernel_share", name="lora", texts=1_600, assignments=_large(kept))


def fp16(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    return _told("encoder", "sample", ["training_config.mixed_precision=fp16"])


def memory(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """A batch that the GPU's memory does not hold is taken in smaller steps."""
    return on_gpu("support.gpu:short_of_memory")


def eight_bit(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    if find_spec("bitsandbytes") is None:
        return {"left_out": "bitsandbytes is not installed"}
    return _told("lora", "sample", ["model_config.use_8bit=true"])


def serve(dataset: str, kept: Path, check: bool) -> dict[str, Any]:
    """Texts a second of the encoder on CPU and GPU, and how far their probabilities are apart."""
    if not (kept / "encoder").is_dir():
        encoder("sample", kept, check)
    return measured("support.gpu:answer", artefact=str(kept / "encoder"))


PARTS: dict[str, Part] = {
    "encoder": encoder,
    "lora": lora,
    "adapters": adapters,
    "unrecorded": unrecorded,
    "kernels": kernels,
    "fp16": fp16,
    "memory": memory,
    "8-bit": eight_bit,
    "serve": serve,
}


def _large(kept: Path) -> list[str]:
    """Assignments for a base model of DistilBERT's size, which is written once."""
    folder = kept / "base"
    if not folder.is_dir():
        measured("support.gpu:write_base", folder=str(folder))
    return [f"model_config.model_name={folder}", "training_config.eval_strategy=no"]


def _told(name: str, dataset: str, assignments: list[str], keep: str | None = None) -> dict[str, Any]:
    fitted = on_gpu("support.fitting:fit_and_judge", name=name, dataset=dataset, assignments=assignments, keep=keep)
    figures = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "ece")
    kept = ("seconds", "tuning_seconds", "texts", "peak_mb", "notes")
    return {key: fitted["scores"][key] for key in figures} | {key: fitted[key] for key in kept}


def faults(results: dict[str, Any]) -> list[str]:
    """What did not come out as it has to."""
    fitted = {name: each for name, each in results.items() if "accuracy" in each}
    wrong = [f"{name}: not trained on the GPU." for name, each in fitted.items() if "cuda" not in each["notes"][0]]
    wrong += [f"{name}: answers no better than by chance." for name, each in fitted.items() if each["accuracy"] < 0.5]
    if "memory" in results and not any("Not enough memory" in note for note in results["memory"]["notes"]):
        wrong.append("memory: the batch was not taken in smaller steps.")
    if (served := results.get("serve")) and served["on_gpu"] and served["furthest"] > 1e-3:
        wrong.append("serve: GPU and CPU answer differently.")
    return wrong


if __name__ == "__main__":
    main()
