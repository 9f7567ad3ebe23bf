"""How long the admin's lists take over a million rows of each kind, on SQLite and on PostgreSQL.

The database is generated (items, interactions, feedback, the rows of two snapshots, ten thousand data sets); each page
is asked for by a superuser, in the process, five times after a first one. Target: under 300 ms and 12 queries.

    python bench/lists.py
    python bench/lists.py --rows 100000 --explain
    python bench/lists.py --check
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.postgres import postgres, postgres_binaries
from support.process import measured

MOST_MS, MOST_QUERIES = 300, 12


def main() -> None:
    options = arguments()
    rows = 2_000 if options.check else options.rows
    found, binaries = {}, postgres_binaries()
    if options.database != "postgres":
        found["SQLite"] = run(rows, "")
    if options.database != "sqlite" and binaries:
        with postgres(binaries) as server:
            found["PostgreSQL"] = run(rows, server.url)
    elif options.database != "sqlite":
        print("PostgreSQL is not installed: left out.")
    print(f"{rows:,} rows of each kind, {os.cpu_count()} cores\n\n{table(found)}")
    pages = [(name, page) for name, each in found.items() for page in each["pages"]]
    late = [f"{name}: {page['name']}" for name, page in pages if page["ms"] > MOST_MS]
    chatty = [f"{name}: {page['name']}" for name, page in pages if page["queries"] > MOST_QUERIES]
    if options.explain:
        for name, page in sorted(pages, key=lambda pair: -pair[1]["ms"])[:8]:
            print(f"\n{name}, {page['name']}, {page['ms']} ms: {page['slowest']}")
    print(
        f"\nOver {MOST_MS} ms: {', '.join(late) or 'none'}. Over {MOST_QUERIES} queries: {', '.join(chatty) or 'none'}."
    )
    if chatty:
        sys.exit("A list asks too much of the database.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    parser.add_argument("--explain", action="store_true", help="print the slowest queries")
    parser.add_argument("--check", action="store_true", help="a few thousand rows, for continuous integration")
    return parser.parse_args()


def run(rows: int, database: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as folder:
        more = {"DJANGO_SETTINGS_MODULE": "kalimtak.settings", "DEBUG": "1", "ALLOWED_HOSTS": "localhost"}
        environment = os.environ | {
            "KALIMTAK_VAR": f"{folder}/var",
            "KALIMTAK_MODELS_STORE": f"{folder}/store",
            "DATABASE_URL": database or f"sqlite:///{folder}/var/db.sqlite3",
        }
        Path(folder, "var").mkdir()
        return measured("support.million:measure", environment=environment | more, rows=rows)


def table(found: dict[str, Any]) -> str:
    names = list(found)
    lines = [f"| Page | {' | '.join(f'{name}, ms | queries' for name in names)} |", "|---" * (2 * len(names) + 1) + "|"]
    for pages in zip(*(each["pages"] for each in found.values()), strict=True):
        cells = " | ".join(f"{page['ms']:,.0f} | {page['queries']}" for page in pages)
        lines.append(f"| {pages[0]['name']} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
