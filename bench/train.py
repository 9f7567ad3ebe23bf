"""Texts per second of fine-tuning, beside transformers' Trainer: same model, same texts, same machine, one run.

Three ways are taken in turn, each in a process of its own: Trainer with every text padded to the maximum, Trainer as
its documentation shows it (padded to the longest of a batch), and the `encoder` family with its default recipe. The
time is a user's: from reading the texts to the last step, conversion left out, progress, logging and checkpoints
included; which share these take of the family's time is printed. The last two train on everything and are compared on
the test part; the first would take too long and sees a share.

    python bench/train.py --dataset emotion
    python bench/train.py --check
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import is_there, text_set
from support.process import measured

from registry.families.process_environment import training_environment

MAX_LENGTH = 128
MOST_BESIDE = 0.03
PADDED_TEXTS = 640  # enough for a steady rate


def main() -> None:
    options = arguments()
    dataset = "sample" if options.check or not is_there(options.dataset) else options.dataset
    if dataset == "sample" and not options.check:
        print(f"{options.dataset} is not here: taking the built-in samples, whose accuracy says little.")
    judge = not options.check
    most = min(options.texts, len(text_set(dataset).train)) if judge else 64
    padded = min(PADDED_TEXTS, most) if judge else 32
    ways = {
        "Trainer, padded to 128": peer(dataset, "max_length", padded, 1, judge=False),
        "Trainer's usual": peer(dataset, "longest", most, options.epochs, judge=judge),
        "`encoder` family": ours(dataset, most, options.epochs, judge=judge),
    }
    print(table(ways))
    slowest, usual, own = (way["texts"] / way["seconds"] for way in ways.values())
    print(f"{own / usual:.2f} x Trainer's usual, {own / slowest:.1f} x padded to the maximum")
    family = ways["`encoder` family"]
    beside = family["beside_seconds"] / family["seconds"]
    print(f"Progress, logging and checkpoints: {beside:.2%} of the family's time (target: under {MOST_BESIDE:.0%})")
    if judge:
        gap = ways["`encoder` family"]["accuracy"] - ways["Trainer's usual"]["accuracy"]
        print(f"Test accuracy {100 * gap:+.2f} points against Trainer's usual")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="emotion", help="a set of KALIMTAK_BENCH_DATA, or sample")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--texts", type=int, default=10**9, help="train on the first so many")
    parser.add_argument("--check", action="store_true", help="a few steps of each, for continuous integration")
    return parser.parse_args()


def peer(dataset: str, padding: str, most: int, epochs: int, *, judge: bool) -> dict[str, Any]:
    return measured(
        "support.peers:trainer",
        dataset=dataset,
        padding=padding,
        most=most,
        epochs=epochs,
        batch_size=16,
        learning_rate=1e-4,
        max_length=MAX_LENGTH,
        judge=judge,
    )


def ours(dataset: str, most: int, epochs: int, *, judge: bool) -> dict[str, Any]:
    # Trainer's usual does not evaluate either.
    assignments = ["training_config.eval_strategy=no", f"training_config.num_epochs={epochs}"]
    assignments.append(f"model_config.max_length={MAX_LENGTH}")
    function = f"support.fitting:{'fit_and_judge' if judge else 'tune'}"
    outcome = measured(
        function,
        environment=training_environment(),  # as every training run of an installation is started
        name="encoder",
        dataset=dataset,
        assignments=assignments,
        most=most,
    )
    accuracy = {"accuracy": outcome["scores"]["accuracy"]} if judge else {}
    return outcome | {"seconds": outcome["tuning_seconds"]} | accuracy


def table(ways: dict[str, dict[str, Any]]) -> str:
    lines = ["| Way | Texts | Seconds | Texts/s | Test accuracy | Peak memory |", "|---|---|---|---|---|---|"]
    for name, way in ways.items():
        rate = way["texts"] / way["seconds"]
        accuracy = f"{way['accuracy']:.2%}" if "accuracy" in way else "–"
        lines.append(
            f"| {name} | {way['texts']:,} | {way['seconds']:.1f} | {rate:.1f} | {accuracy} | {way['peak_mb']:,} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
