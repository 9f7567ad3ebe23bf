"""Seconds, memory and rows of a curation of so many interactions with feedback, and of the day after.

The daily job's own service on a real database, each day in a process of its own. The texts are made up but skewed like
real logs (`bench/support/logs.py`). The second day brings a tenth of the first, and should cost a tenth.

    python bench/curate.py --rows 1000000 2000000
    python bench/curate.py --rows 200000 --database postgres --json curate.json
    python bench/curate.py --check

Exits 1 where a statistic does not add up, a repetition changes something, or a piece of evidence takes more queries
or steps of the database on the second day; a speed that is not reached is no fault. What is counted of the set when a
curation begins is told apart: it grows with the set.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.postgres import postgres, postgres_binaries
from support.process import measured

SECOND_DAY = 0.1  # of the first
CHECK_ROWS = 6_000
MORE_WORK = 1.25  # for a piece of evidence on the second day, as often as on the first, is still the same

PARTS = ("approved", "for_review", "quarantined")  # of what was loaded
# Neither duplicate nor filtered.
LEFT_OUT = (
    "low rating without a correction",
    "low rating, yet the answer as its correction",
    "label over-represented",
)

Figures = dict[str, Any]


def main() -> None:
    options = arguments()
    runs = [two_days(rows, options) for rows in options.rows]
    print(f"\n{table(runs)}")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    faults = [fault for run in runs for fault in run["faults"]]
    sys.exit("\n".join(faults) or 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="interactions of the first day")
    parser.add_argument("--database", default="sqlite", help="sqlite, postgres (a server of its own), or a URL")
    parser.add_argument("--profile", default="", help="write cProfile's figures of the first day here")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--check", action="store_true", help="a few seconds, for continuous integration")
    options = parser.parse_args()
    if options.check:
        options.rows = [CHECK_ROWS]
    return options


def two_days(rows: int, options: argparse.Namespace) -> Figures:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kalimtak-bench-")))
        environment = dict(os.environ) | {
            "DJANGO_SETTINGS_MODULE": "kalimtak.settings",
            "KALIMTAK_VAR": str(scratch / "var"),
            "KALIMTAK_MODELS_STORE": str(scratch / "store"),
            "DEBUG": "0",  # with it Django would remember queries, which are long
            "SECRET_KEY": "of a database that is gone in a moment",
            "KALIMTAK_SUBJECT_KEY": "of a database that is gone in a moment",
            "DATABASE_URL": database_url(options.database, stack),
        }
        run: Figures = {"rows": rows, "second_rows": max(1, round(rows * SECOND_DAY)), "database": options.database}
        measured("support.curating:prepare", environment=environment)
        run["copies"] = measured("support.curating:speak", environment=environment, rows=rows, seed=1)["copies"]
        print(f"{rows:,} interactions with feedback are in the database.", flush=True)
        if options.check:
            run["dry"] = measured("support.curating:curate", environment=environment, dry_run=True)
        run["first"] = measured("support.curating:curate", environment=environment, profile=options.profile)
        print(f"Curated in {run['first']['seconds']:.1f} s.", flush=True)
        measured("support.curating:speak", environment=environment, rows=run["second_rows"], seed=2)
        run["second"] = measured("support.curating:curate", environment=environment)
        run["again"] = measured("support.curating:curate", environment=environment)
        database = scratch / "var" / "kalimtak.sqlite3"
        run["database_mb"] = database.stat().st_size / 1e6 if database.exists() else None
    run["faults"] = list(faults(run))
    return run


def database_url(choice: str, stack: ExitStack) -> str:
    """Empty for SQLite in the scratch folder."""
    if choice == "sqlite":
        return ""
    if choice != "postgres":
        return choice
    binaries = postgres_binaries()
    if binaries is None:
        sys.exit("No initdb here. --database takes the URL of an empty database.")
    return stack.enter_context(postgres(binaries)).url


def faults(run: Figures) -> list[str]:
    """What must hold however fast it is."""
    first, second, again = (run[name]["stats"] for name in ("first", "second", "again"))
    found = []
    if "dry" in run and run["dry"]["stats"] != first:
        found.append(f"A dry run said {run['dry']['stats']}, the curation {first}.")
    if "dry" in run and any(run["dry"]["rows"].values()):
        found.append(f"A dry run wrote {run['dry']['rows']}.")
    for name, stats, rows in (("first", first, run["rows"]), ("second", second, run["second_rows"])):
        if stats["extracted"] != rows:
            found.append(f"The {name} day extracted {stats['extracted']} of {rows}.")
        dropped = stats["duplicates"] + stats["filtered"] + sum(stats["reasons"].get(each, 0) for each in LEFT_OUT)
        if stats["loaded"] + dropped != rows or sum(stats[part] for part in PARTS) != stats["loaded"]:
            found.append(f"The {name} day's figures do not add up: {stats}")
    if again["extracted"] or run["again"]["rows"] != run["second"]["rows"]:
        found.append(f"A repetition changed {run['second']['rows']} to {run['again']['rows']}.")
    work = run["second"]["queries"] / run["second_rows"], run["first"]["queries"] / run["rows"]
    rest = [run[name]["steps"] - run[name]["counting"]["steps"] for name in ("second", "first")]
    steps = rest[0] / run["second_rows"], rest[1] / run["rows"]
    for name, (later, before) in (("queries", work), ("steps", steps)):
        if later > MORE_WORK * before + 100 / run["second_rows"]:
            found.append(f"The second day took {later:.2f} {name} for each piece of evidence, the first {before:.2f}.")
    return found


def table(runs: list[Figures]) -> str:
    """As Markdown, for docs/benchmarks.md. Processor time is that of the curation alone, the database server's not.

    *Counting* is what it takes of these seconds to count the set's labels and sources, which grows with the set.
    """
    heads = ("Interactions", "Database", "Seconds", "counting", "of the processor", "each")
    heads += ("Peak memory", "Items", "Duplicates")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in runs:
        for rows, day in ((run["rows"], run["first"]), (run["second_rows"], run["second"])):
            cells = [
                f"{rows:,}" if day is run["first"] else f"– the day after, {rows:,}",
                {"sqlite": "SQLite"}.get(run["database"], "PostgreSQL"),
                f"{day['seconds']:.1f}",
                f"{day['counting']['seconds']:.1f}",
                f"{day['cpu']:.1f}",
                f"{day['cpu'] / rows * 1e6:.0f} µs",
                f"{day['peak_mb']:,} MB",
                f"{day['stats']['loaded']:,}",
                f"{day['stats']['duplicates']:,}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
