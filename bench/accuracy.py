"""Accuracy, time and memory of the families' default recipes on public sets, beside published figures.

Each family trains on a set's train part, calibrates on its validation part and is judged on its test part, which
nothing else ever looks at, answering as it will serve (int8 where that was chosen). Every fit has a process of its own.

    python bench/accuracy.py --families classic embedding --sets emotion trec6
    python bench/accuracy.py --check
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import is_there
from support.process import measured

from registry.families import FAMILIES

# What others reached with these test texts, and who. Sources: docs/benchmarks.md.
PUBLISHED = {
    "emotion": (0.930, "DistilBERT"),
    "atis": (0.9776, "DistilBERT"),
    "snips": (0.980, "DistilBERT"),
    "trec6": (0.950, "SVM with hand-made features"),
    "sms_spam": (0.9764, "linear SVM, harder split"),
}
TRAINED = [name for name in ("classic", "embedding", "encoder", "lora") if name in FAMILIES]


def main() -> None:
    options = arguments()
    if options.check:
        options.sets, options.families = ["sample"], ["classic"]
    if missing := [name for name in options.sets if name != "sample" and not is_there(name)]:
        print(f"Not here, left out: {', '.join(missing)}. Set KALIMTAK_BENCH_DATA to the folder that holds them.")
    rows = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as cache:
        for dataset in [name for name in options.sets if name not in missing]:
            for name in options.families:
                row = {"dataset": dataset, "family": name} | one(name, dataset, options.set, cache)
                print(line(row), flush=True)
                rows.append(row)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.check and not all(row["scores"]["accuracy"] > 0.5 for row in rows):
        sys.exit("A family answers its own kind of text no better than by chance.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), metavar="SET")
    parser.add_argument("--families", nargs="+", default=TRAINED, choices=TRAINED)
    parser.add_argument("--set", nargs="+", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe")
    parser.add_argument("--json", metavar="FILE", help="write every figure and note there")
    parser.add_argument("--check", action="store_true", help="one quick fit, for continuous integration")
    return parser.parse_args()


def one(name: str, dataset: str, assignments: list[str], cache: str) -> dict[str, Any]:
    return measured("support.fitting:fit_and_judge", name=name, dataset=dataset, assignments=assignments, cache=cache)


HEAD = (
    "| Set | Family | Test accuracy | Macro-P | Macro-R | Macro-F1 | ECE | Fit | Peak memory | Published |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(row: dict[str, Any]) -> str:
    scores = row["scores"]
    low, high = scores["accuracy_interval"]
    figure, by = PUBLISHED.get(row["dataset"], (None, ""))
    published = f"{figure:.2%} {by}" if figure else "–"
    shares = " | ".join(f"{scores[key]:.2%}" for key in ("macro_precision", "macro_recall", "macro_f1"))
    return (
        f"| {row['dataset']} | `{row['family']}` | {scores['accuracy']:.2%} ({100 * low:.1f} to {100 * high:.1f}) "
        f"| {shares} | {scores['ece']:.3f} | {row['seconds']:.0f} s | {row['peak_mb']:,} MB | {published} |"
    )


if __name__ == "__main__":
    main()
