"""Texts per second of fine-tuning, beside transformers' Trainer: same model, same texts, same machine, one run.

Three ways are taken in turn, each in a process of its own: Trainer with every text padded to the maximum, Trainer as
its documentation shows it (padded to the longest of a batch), and the `encoder` family with its default recipe. The
time is a user's: from reading the texts to the last step, conversion left out, progress, logging and checkpoints
included; which share these take of the family's time is printed. The last two train on everything and are compared on
the test part; the first would take too long and sees a share. Where other machines share the processor, speed alone is
better taken several times in turns: the middle rate of each way counts, and Trainer's usual sees a share as well.

    python bench/train.py --dataset emotion
    python bench/train.py --dataset emotion --rounds 3
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
PADDED_TEXTS, USUAL_TEXTS = 640, 1_600  # enough for a steady rate
PADDED, USUAL, FAMILY = "Trainer, padded to 128", "Trainer's usual", "`encoder` family"


def main() -> None:
    options = arguments()
    dataset = "sample" if options.check or not is_there(options.dataset) else options.dataset
    if dataset == "sample" and not options.check:
        print(f"{options.dataset} is not here: taking the built-in samples, whose accuracy says little.")
    most = 64 if options.check else min(options.texts, len(text_set(dataset).train))
    judge = not options.check and options.rounds == 1
    rounds = [taken(dataset, most, options.epochs, judge=judge) for _ in range(options.rounds)]
    ways = {name: middle([each[name] for each in rounds]) for name in rounds[0]}
    print(table(ways))
    print(f"{rate(ways[FAMILY]) / rate(ways[USUAL]):.2f} x {USUAL}, ", end="")
    print(f"{rate(ways[FAMILY]) / rate(ways[PADDED]):.1f} x padded to the maximum")
    if options.rounds > 1:
        print("Texts/s in each round: " + "; ".join(f"{name} {rates(rounds, name)}" for name in ways))
    beside = ways[FAMILY]["beside_seconds"] / ways[FAMILY]["seconds"]
    print(f"Progress, logging and checkpoints: {beside:.2%} of the family's time (target: under {MOST_BESIDE:.0%})")
    if judge:
        gap = ways[FAMILY]["accuracy"] - ways[USUAL]["accuracy"]
        print(f"Test accuracy {100 * gap:+.2f} points against Trainer's usual")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="emotion", help="a set of KALIMTAK_BENCH_DATA, or sample")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--texts", type=int, default=10**9, help="train on the first so many")
    parser.add_argument("--rounds", type=int, default=1, help="speed alone, so many times; the middle one counts")
    parser.add_argument("--check", action="store_true", help="a few steps of each, for continuous integration")
    return parser.parse_args()


def taken(dataset: str, most: int, epochs: int, *, judge: bool) -> dict[str, dict[str, Any]]:
    """Every way once, on the first `most` texts or a share of them."""
    usual = most if judge else min(USUAL_TEXTS, most)
    return {
        PADDED: peer(dataset, "max_length", min(PADDED_TEXTS, most), 1, judge=False),
        USUAL: peer(dataset, "longest", usual, epochs, judge=judge),
        FAMILY: ours(dataset, most, epochs, judge=judge),
    }


def rate(way: dict[str, Any]) -> float:
    """Texts per second."""
    return float(way["texts"] / way["seconds"])


def middle(ways: list[dict[str, Any]]) -> dict[str, Any]:
    return sorted(ways, key=rate)[len(ways) // 2]


def rates(rounds: list[dict[str, dict[str, Any]]], name: str) -> str:
    return " / ".join(f"{rate(each[name]):.1f}" for each in rounds)


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
        accuracy = f"{way['accuracy']:.2%}" if "accuracy" in way else "–"
        figures = f"{way['texts']:,} | {way['seconds']:.1f} | {rate(way):.1f} | {accuracy} | {way['peak_mb']:,} MB"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
