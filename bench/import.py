"""Import of a large CSV: how long it takes and that its memory does not grow with the file.

The file is written on the fly (texts of 5 to 150 words, eight labels, bad rows, quoted line breaks, repetitions), then
imported as `import_dataset` does, into a new database, in a process of its own whose largest resident memory is read at
the end. Two sizes tell whether memory is constant.

    python bench/import.py
    python bench/import.py --database postgres --sizes 128 1024
    python bench/import.py --check
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.importing import write_file
from support.postgres import postgres, postgres_binaries
from support.process import measured

MIB = 2**20
MOST_GROWTH = 100  # MB between the smallest and the largest file: the hashes of a million texts are kept for counting


def main() -> None:
    options = arguments()
    sizes = [1, 4] if options.check else sorted(options.sizes)
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="kalimtak-bench-", dir=options.folder) as folder:
            path = Path(folder, "rows.csv")
            rows = write_file(path, size * MIB)
            found.append({"written": rows} | run(path, options.database))
            print(f"{size} MiB: {found[-1]}", file=sys.stderr)
    print(table(found))
    growth = found[-1]["peak_mb"] - found[0]["peak_mb"]
    print(f"\n{growth} MB more for {sizes[-1] / sizes[0]:.0f} times the file (target: under {MOST_GROWTH} MB).")
    wrong = [each for each in found if each["rows"] != each["written"]]
    if wrong or growth > MOST_GROWTH:
        sys.exit("Rows were lost." if wrong else "Memory grows with the file.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 1024], metavar="MIB")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument(
        "--folder", help="where the file, its copy in the store and the database lie; else as TMPDIR says"
    )
    parser.add_argument("--check", action="store_true", help="a few megabytes, for continuous integration")
    return parser.parse_args()


def run(path: Path, database: str) -> dict[str, Any]:
    binaries = postgres_binaries() if database == "postgres" else None
    if database == "postgres":
        if binaries is None:
            sys.exit("PostgreSQL is not installed.")
        with postgres(binaries) as server:
            return imported(path, server.url)
    return imported(path, f"sqlite:///{path.parent}/var/db.sqlite3")


def imported(path: Path, database: str) -> dict[str, Any]:
    Path(path.parent, "var").mkdir()
    environment = os.environ | {
        "KALIMTAK_VAR": f"{path.parent}/var",
        "KALIMTAK_MODELS_STORE": f"{path.parent}/store",
        "DATABASE_URL": database,
        "DJANGO_SETTINGS_MODULE": "kalimtak.settings",
        "DEBUG": "0",
        "SECRET_KEY": "x" * 60,
        "ALLOWED_HOSTS": "localhost",
    }
    return measured("support.importing:load", environment=environment, path=str(path))


def table(found: list[dict[str, Any]]) -> str:
    lines = ["| File | Rows | Loaded | Bad rows | Time | Rows/s | Largest resident memory |", "|---" * 7 + "|"]
    for each in found:
        rate = each["rows"] / each["seconds"]
        cells = [
            f"{each['bytes'] / 1e6:,.0f} MB",
            f"{each['rows']:,}",
            f"{each['outcome']['loaded']:,}",
            f"{each['errors']:,}",
            f"{each['seconds']:,.0f} s",
            f"{rate:,.0f}",
            f"{each['peak_mb']:,} MB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
