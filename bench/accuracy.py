"""Accuracy, time and memory of the families' default recipes on public sets, beside published figures.

Each family trains on a set's train part, calibrates on its validation part and is judged on its test part, which
nothing else ever looks at: a fresh process loads what was saved and answers as it will serve (int8 where that was
chosen). Every fit has a process of its own. Beside the calibration error (ECE) stands what exact confidence would show
on average, as so few texts cannot show less. `ensemble` combines the families before it, of the same call. With
`--target-precision 0.95` versions abstain under a confidence that training chose on the validation part; the table then
says which share of the test part is still answered, and which share of those answers is right.

    python bench/accuracy.py --families classic embedding --sets emotion trec6
    python bench/accuracy.py --families classic encoder ensemble --sets emotion --target-precision 0.95
    python bench/accuracy.py --check
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import is_there
from support.process import measured

from registry.families import FAMILIES
from registry.families.process_environment import training_environment

# What others reached with these test texts, and who. Sources: docs/benchmarks.md.
PUBLISHED = {
    "emotion": (0.930, "DistilBERT"),
    "atis": (0.9776, "DistilBERT"),
    "snips": (0.980, "DistilBERT"),
    "trec6": (0.950, "SVM with hand-made features"),
    "sms_spam": (0.9764, "linear SVM, harder split"),
}
TRAINED = [name for name in ("classic", "embedding", "encoder", "lora") if name in FAMILIES]
ENSEMBLE = "ensemble"  # only where it is named


def main() -> None:
    options = arguments()
    if options.check:
        options.sets, options.families = ["sample"], ["classic"]
    if missing := [name for name in options.sets if name != "sample" and not is_there(name)]:
        print(f"Not here, left out: {', '.join(missing)}. Set KALIMTAK_BENCH_DATA to the folder that holds them.")
    rows = []
    print(head(options.target_precision), flush=True)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as cache:
        for dataset in [name for name in options.sets if name not in missing]:
            for row in all_of(dataset, options, cache):
                print(line(row), flush=True)
                rows.append(row)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.check and not all(row["scores"]["accuracy"] > 0.5 for row in rows):
        sys.exit("A family answers its own kind of text no better than by chance.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), metavar="SET")
    parser.add_argument("--families", nargs="+", default=TRAINED, choices=[*TRAINED, ENSEMBLE])
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe")
    parser.add_argument("--target-precision", type=float, metavar="SHARE", help="0.5 to 1, as policy.target_precision")
    parser.add_argument("--json", metavar="FILE", help="write every figure and note there")
    parser.add_argument("--check", action="store_true", help="one quick fit, for continuous integration")
    options = parser.parse_args()
    if ENSEMBLE in options.families and (options.families.index(ENSEMBLE) < 2 or options.families[-1] != ENSEMBLE):
        parser.error("an ensemble is made of the families before it, at least two: name it last")
    if options.target_precision is not None and not 0.5 <= options.target_precision <= 1:
        parser.error("--target-precision lies between 0.5 and 1")
    return options


def all_of(dataset: str, options: argparse.Namespace, cache: str) -> Iterator[dict[str, Any]]:
    """A row for each family, in order."""
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as kept:
        made: dict[str, str] = {}
        for name in options.families:
            own = [f"model_config.members=[{', '.join(made)}]"] if name == ENSEMBLE else []
            outcome = measured(
                "support.fitting:fit_and_judge",
                environment=training_environment(),
                name=name,
                dataset=dataset,
                assignments=[*options.set, *own],
                cache=cache,
                target_precision=options.target_precision,
                keep=str(Path(kept, name, "1")),
                members=made if name == ENSEMBLE else {},
            )
            made[name] = str(Path(kept, name, "1"))
            yield {"dataset": dataset, "family": name} | outcome


def head(target: float | None) -> str:
    names = [
        "Set",
        "Family",
        "Test accuracy",
        "Macro-P",
        "Macro-R",
        "Macro-F1",
        "ECE (by chance)",
        "Fit",
        "Peak memory",
        "Published",
    ]
    names += ["Answered", "of them right"] if target is not None else []
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def line(row: dict[str, Any]) -> str:
    scores = row["scores"]
    low, high = scores["accuracy_interval"]
    figure, by = PUBLISHED.get(row["dataset"], (None, ""))
    published = f"{figure:.2%} {by}" if figure else "–"
    calibration = f"{scores['ece']:.3f} ({scores['ece_by_chance']:.3f})"
    shares = " | ".join(f"{scores[key]:.2%}" for key in ("macro_precision", "macro_recall", "macro_f1"))
    abstaining = ""
    if answered := row["answered"]:
        right = "–" if answered["precision"] is None else f"{answered['precision']:.2%}"
        abstaining = f" {answered['share']:.1%} | {right} |"
    return (
        f"| {row['dataset']} | `{row['family']}` | {scores['accuracy']:.2%} ({100 * low:.1f} to {100 * high:.1f}) "
        f"| {shares} | {calibration} | {row['seconds']:.0f} s | {row['peak_mb']:,} MB | {published} |{abstaining}"
    )


if __name__ == "__main__":
    main()
