"""Requests per second and latencies of our own server, beside the raw model and servers by others, in one run.

Everybody answers the same texts by the same model, in turns: the bare forward pass on all cores (the ceiling),
Kalimtak on SQLite and on PostgreSQL with keys, rate limit and routing on and every answer a committed row, FastAPI
around a transformers pipeline, and LitServe. Then Kalimtak alone: one caller, a fixed arrival rate, overload, a
deployment and a rollback under load, a classic model, start and memory. Rows are held against answers throughout.

    python bench/serve.py --dataset emotion --installation ~/bench-emotion --install-peers \\
        --json serve.json --plot docs/img/serving.svg
    python bench/serve.py --scenarios latency overload --database sqlite --seconds 5
    python bench/serve.py --check

Exits 1 where an answer or a row is wrong; a speed that is not reached is no fault, the tables name the targets.
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

from support import ceiling
from support.console import Console
from support.datasets import text_set
from support.installation import Installation, make_installation, serving
from support.load import ask_closed, ask_open
from support.peer_environment import peers_python
from support.postgres import postgres, postgres_binaries
from support.report import plot, tables
from support.scenarios import ON_ONE_SERVER, Bench, behaviour, exact, throughput
from support.texts import sentences, write_bodies

from registry.text import prepare

ENCODER, CLASSIC = "emotion", "intent"
TEXTS, FEW = 20_000, 300
CHECK_ROWS = 500  # what a check trains on: it is about serving
SCENARIOS = ("throughput", *ON_ONE_SERVER)


def main() -> None:
    options = arguments()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kalimtak-bench-")))
        if options.check:
            sys.exit(check(scratch))
        bench = prepared(options, scratch, stack)
        results: dict[str, Any] = {"setting": setting(bench)}
        if "throughput" in options.scenarios:
            results |= throughput(bench)
        results["behaviour"] = behaviour(bench, [name for name in ON_ONE_SERVER if name in options.scenarios])
        results["faults"] = bench.faults
    print(f"\n{tables(results)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot and "throughput" in results:
        plot(results["throughput"], options.plot)
    sys.exit("\n".join(bench.faults) or 0)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS)
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody's throughput is taken")
    parser.add_argument("--dataset", default="sample", help="what the encoder learns: a set of KALIMTAK_BENCH_DATA")
    parser.add_argument("--installation", type=Path, help="use this one, made before; made there if it is not there")
    parser.add_argument(
        "--database", default="both", help="sqlite, postgres (a server of its own), the URL of an empty database, both"
    )
    parser.add_argument("--peers", type=Path, default=Path(__file__).parent / ".peers", help="their environment")
    parser.add_argument("--install-peers", action="store_true", help="make it where it is missing")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--plot", type=Path, help="draw the throughput here, as PNG or SVG")
    parser.add_argument("--check", action="store_true", help="a few seconds, for continuous integration")
    return parser.parse_args()


def prepared(options: argparse.Namespace, scratch: Path, stack: ExitStack) -> Bench:
    """A copy of the installation on each database, texts that fit its model, and the peers."""
    peers = peers_python(options.peers, install=options.install_peers) if "throughput" in options.scenarios else None
    folder = options.installation or scratch / "made"
    if (folder / "key").is_file():
        made = Installation(folder)
    else:
        print(f"Making an installation in {folder}; training takes some minutes.", flush=True)
        made = make_installation(folder, [ENCODER, CLASSIC], dataset=options.dataset)
    sites = {}
    if options.database in ("sqlite", "both"):
        sites["SQLite"] = made.copy(scratch / "sqlite")
    if options.database != "sqlite" and (url := postgres_url(options.database, stack)):
        sites["PostgreSQL"] = made.copy_to_database(scratch / "postgresql", url)
    consoles = {name: stack.enter_context(Console(site.environment)) for name, site in sites.items()}
    number = next(iter(consoles.values())).ask(f"live({ENCODER!r})")
    version = made.version(ENCODER, number)
    return Bench(
        sites=sites,
        consoles=consoles,
        encoder=ENCODER,
        classic=CLASSIC,
        version=version,
        bodies=str(write_bodies(scratch / "bodies.jsonl", sentences(TEXTS))),
        few=str(write_bodies(scratch / "few.jsonl", sample_texts(FEW))),
        seconds=options.seconds,
        rounds=options.rounds,
        peers=peers,
    )


def sample_texts(count: int) -> list[str]:
    """Sentences of the built-in sample set that nothing was trained on, those that preparing leaves as they are."""
    held_out = text_set("sample")
    texts = [example.fields[0] for example in (*held_out.test, *held_out.valid)]
    return [text for text in texts if prepare(text) == text][:count]


def postgres_url(choice: str, stack: ExitStack) -> str:
    """Empty where there is none, which is said."""
    if choice not in ("postgres", "both"):
        return choice
    binaries = postgres_binaries()
    if binaries is None:
        print("PostgreSQL is left out: no initdb here. --database takes the URL of a server.")
        return ""
    return stack.enter_context(postgres(binaries)).url


def setting(bench: Bench) -> str:
    """What ran where, in a line."""
    lengths = ceiling.token_lengths(bench.version, sentences(FEW, seed=2))
    graph = "int8" if "int8" in ceiling.graph_of(bench.version).name else "fp32"
    return (
        f"`{bench.encoder}` in {graph}, texts of {min(lengths)} to {max(lengths)} tokens (mean "
        f"{sum(lengths) / len(lengths):.1f}), {os.cpu_count()} cores shared by server, database and load generator, "
        f"{bench.rounds} rounds of {bench.seconds:g} s in turns."
    )


def check(scratch: Path) -> str | int:
    """A classic model on SQLite, asked in both ways for a second: nothing fails, one row for each answer."""
    site = make_installation(scratch / "made", [CLASSIC], rows=CHECK_ROWS)
    with Console(site.environment) as console, serving(site) as server:
        bodies = str(write_bodies(scratch / "bodies.jsonl", sentences(2_000)))
        consoles = {"SQLite": console}
        bench = Bench({"SQLite": site}, consoles, CLASSIC, CLASSIC, site.folder, bodies, bodies, 1.0, 1, None)
        with exact(bench, "SQLite") as note:
            note(closed := ask_closed(bench.target(server), 1.0, keep=True))
        with exact(bench, "SQLite") as note:
            note(steady := ask_open(bench.target(server), 60, 1.0, keep=True))
    print(f"{closed.rate:.0f} answers/s in a closed loop, p99 {steady.percentile(0.99) * 1000:.0f} ms at 60 a second")
    failed = closed.failed + steady.failed
    return "\n".join([*bench.faults, *([f"{failed} requests failed."] if failed else [])]) or 0


if __name__ == "__main__":
    main()
