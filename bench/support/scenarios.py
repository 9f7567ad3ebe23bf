"""What `bench/serve.py` can measure. Every answer of ours is held against its row; what does not fit is a fault."""

import csv
import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import ceiling
from support.console import ROOT, Console
from support.installation import Installation, Server, serving
from support.load import CONNECTIONS, Kept, Outcome, Rate, Target, ask_closed, ask_open, load, percentile
from support.peer_environment import PEERS, peer_serving

CEILING, OURS = "Ceiling", "Kalimtak"
WARM_SECONDS = 2.0
MOST_CONNECTIONS = 1024  # of an open loop that the server does not keep up with
FILE_LOADS = 6  # times as long as another load, so that the start of the command weighs little
SATURATION_SHARE, OVERLOAD, SWAP_SHARE = 0.6, 3.0, 0.4
LEAST_AGREEMENT = 0.9  # under this they cannot be the same model; int8 costs a few texts near a border
JSON = {"Content-Type": "application/json"}


@dataclass
class Bench:
    """What the scenarios share. `bodies` are for loads, `few` to compare answers; both name files."""

    sites: dict[str, Installation]  # by the name of their database
    consoles: dict[str, Console]
    encoder: str
    classic: str
    version: Path
    bodies: str
    few: str
    seconds: float
    rounds: int
    peers: Path | None
    peaks: dict[str, float] = field(default_factory=dict)  # answers a second, by database
    faults: list[str] = field(default_factory=list)

    def target(self, server: Server, slug: str = "", bodies: str = "") -> Target:
        return Target(server.port, f"/api/classify/{slug or self.encoder}", bodies or self.bodies, server.headers)


# Throughput, everybody in turn -------------------------------------------------------------------------------------


def throughput(bench: Bench) -> dict[str, Any]:
    """Answers a second of everybody, in turns; whoever came last in one round comes first in the next."""
    turns: dict[str, Callable[[int], dict[str, Any]]] = {CEILING: lambda offset: _turn_of_ceiling(bench)}
    for name in bench.sites:
        turns[f"{OURS}, {name}"] = lambda offset, name=name: _turn_of_ours(bench, name, offset)
    for peer in PEERS if bench.peers else ():
        turns[peer.name] = lambda offset, peer=peer: _turn_of_peer(bench, peer, offset)
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in turns}
    for number in range(bench.rounds):
        order = list(turns) if number % 2 == 0 else list(reversed(turns))
        for name in order:
            seen[name].append(turns[name](number * 7919))
            print(f"round {number + 1}: {name} {seen[name][-1]['rate']:.0f}/s", flush=True)
    for name in bench.sites:
        bench.peaks[name] = statistics.median(turn["rate"] for turn in seen[f"{OURS}, {name}"])
    labels = {name: first.pop("labels") for name, (first, *_) in seen.items() if "labels" in first}
    return {"throughput": seen, "agreement": agreement(bench, labels)}


def _turn_of_ceiling(bench: Bench) -> dict[str, Any]:
    return ceiling.ceiling(bench.version, bench.bodies, bench.seconds)


def _turn_of_ours(bench: Bench, name: str, offset: int) -> dict[str, Any]:
    with serving(bench.sites[name]) as server:
        target = bench.target(server)
        load(target, WARM_SECONDS)
        with counted(bench, name) as note:
            note(turn := load(target, bench.seconds, offset=offset))
        return _figures(turn) | {
            "ready_seconds": server.ready_seconds,
            "memory_mb": max(server.memory()),
            "labels": _labels_of_ours(bench, name, server),
        }


def _turn_of_peer(bench: Bench, peer: Any, offset: int) -> dict[str, Any]:
    assert bench.peers is not None
    with peer_serving(peer, bench.peers, bench.version / "package") as port:
        target = Target(port, peer.path, bench.bodies, JSON)
        load(target, WARM_SECONDS)
        turn = load(target, bench.seconds, offset=offset)
        if turn.failed:
            bench.faults.append(f"{peer.name}: {turn.failed} requests failed.")
        return _figures(turn) | {
            "labels": _labels(ask_closed(Target(port, peer.path, bench.few, JSON), **_once(bench)))
        }


def _figures(turn: Rate) -> dict[str, Any]:
    return {"rate": turn.rate, "p50": turn.p50, "p99": turn.p99, "generator_cpu": turn.cpu, "tool": turn.tool}


# Answers -----------------------------------------------------------------------------------------------------------


def agreement(bench: Bench, labels: dict[str, list[str]]) -> dict[str, Any]:
    """Of the texts in `few`, the share that each answers as the raw graph does, and the peers as each other."""
    manifest = json.loads((bench.version / "manifest.json").read_text(encoding="utf-8"))
    raw = [manifest["labels"][index] for index in ceiling.labels(bench.version, bench.few)]
    peers = [labels[peer.name] for peer in PEERS if peer.name in labels]
    shares = {name: _same(raw, given) for name, given in labels.items()}
    for name, share in shares.items():
        if name.startswith(OURS) and share < 1:
            bench.faults.append(f"{name} answers {1 - share:.1%} of the texts otherwise than its own graph.")
        if share < LEAST_AGREEMENT:
            bench.faults.append(f"{name} agrees with the graph on {share:.1%} of the texts only: not the same model.")
    among = _same(*peers) if len(peers) == 2 else None
    return {"texts": len(raw), "with_graph": shares, "among_peers": among, "labels_given": len(set(raw))}


def _same(one: list[str], other: list[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def _once(bench: Bench) -> dict[str, Any]:
    """Each of the few texts once."""
    return {"total": len(Path(bench.few).read_text(encoding="utf-8").splitlines()), "keep": True}


def _labels(outcome: Outcome) -> list[str]:
    return [answer.label for answer in sorted(outcome.kept)]


def _labels_of_ours(bench: Bench, name: str, server: Server) -> list[str]:
    with exact(bench, name) as note:
        note(outcome := ask_closed(bench.target(server, bodies=bench.few), **_once(bench)))
    return _labels(outcome)


# Rows --------------------------------------------------------------------------------------------------------------


@contextmanager
def counted(bench: Bench, name: str):
    """Hold a `Rate`, given to the function, against the rows that came meanwhile.

    wrk stops in the middle of requests and never sees those answers, which are recorded all the same.
    """
    rates: list[Rate] = []
    time.sleep(1)
    before = bench.consoles[name].ask("count()")
    yield rates.append
    time.sleep(1)
    rows = bench.consoles[name].ask("count()") - before
    for rate in rates:
        if rate.failed:
            bench.faults.append(f"{name}: {rate.failed} requests failed under {rate.answers} answers.")
        if not rate.answers <= rows <= rate.answers + CONNECTIONS + rate.failed:
            bench.faults.append(f"{name}: {rate.answers} answers, {rows} rows.")


@contextmanager
def exact(bench: Bench, name: str):
    """Hold an `Outcome` that kept its answers against the rows: one for each answer, of the version that it names."""
    outcomes: list[Outcome] = []
    console = bench.consoles[name]
    before = console.ask("count()")
    yield outcomes.append
    rows = console.ask("count()") - before
    kept = dict(console.ask(f"newest({rows})"))
    for outcome in outcomes:
        bench.faults += [f"{name}: {fault}" for fault in faults_of(outcome.kept, kept, outcome.failed)]


def faults_of(answers: list[Kept], rows: dict[str, int], failed: int) -> list[str]:
    """What is wrong between answers and rows {id: number of the version}; a failed request may have left a row."""
    faults = []
    ids = [answer.interaction_id for answer in answers]
    if len(set(ids)) != len(ids):
        faults.append("an interaction id was given twice.")
    if missing := set(ids) - set(rows):
        faults.append(f"{len(missing)} answers have no row.")
    if len(rows) > len(ids) + failed:
        faults.append(f"{len(rows)} rows for {len(ids)} answers and {failed} failed requests.")
    wrong = [each for each in answers if rows.get(each.interaction_id) != int(each.model_version.partition("/")[2])]
    if len(wrong) > len(missing):
        faults.append(f"{len(wrong) - len(missing)} answers name another version than their rows.")
    if cached := sum(answer.source == "cache" for answer in answers):
        faults.append(f"{cached} answers came from a cache: this is no measurement of a model.")
    return faults


# One server of ours ------------------------------------------------------------------------------------------------


def peak(bench: Bench, name: str, server: Server) -> float:
    """Answers a second at most: as measured beside the others, else now."""
    if name not in bench.peaks:
        load(bench.target(server), WARM_SECONDS)
        bench.peaks[name] = load(bench.target(server), bench.seconds).rate
    return bench.peaks[name]


def latency(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """One caller alone, then requests at fixed times, 60 % of what the server can."""
    rate = SATURATION_SHARE * peak(bench, name, server)
    with counted(bench, name) as note:
        note(alone := load(bench.target(server), max(1.0, bench.seconds / 2), connections=1))
    with exact(bench, name) as note:
        note(steady := ask_open(bench.target(server), rate, bench.seconds, most=MOST_CONNECTIONS, keep=True))
    if steady.failed:
        bench.faults.append(f"{name}: {steady.failed} requests failed at 60 % of saturation: {dict(steady.statuses)}")
    return {
        "alone_p50": alone.p50,
        "alone_p99": alone.p99,
        "steady_rate": rate,
        "steady_p50": steady.percentile(0.5),
        "steady_p99": steady.percentile(0.99),
        "steady_lag_p99": percentile(steady.lags, 0.99),
        "steady_cpu": steady.cpu,
    }


def overload(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """Three times what the server can: it must go on answering, and refuse the rest at once."""
    most = peak(bench, name, server)
    target = bench.target(server)
    with exact(bench, name) as note:
        note(flood := ask_open(target, OVERLOAD * most, bench.seconds, most=MOST_CONNECTIONS, keep=True))
    odd = {status: count for status, count in flood.statuses.items() if status not in (200, 503)}
    if odd or flood.cut:
        bench.faults.append(f"{name}: under overload {odd} and {flood.cut} connections cut.")
    if flood.without_retry_after:
        bench.faults.append(f"{name}: {flood.without_retry_after} refusals without Retry-After.")
    return {
        "overload_rate": OVERLOAD * most,
        "goodput_share": flood.in_time / flood.seconds / most,
        "refused": flood.statuses[503],
        "answered": flood.answers,
        "unanswered": flood.unanswered,
        "refusal_p99": flood.percentile(0.99, 503),
        "overload_p99": flood.percentile(0.99),
        "overload_lag_p99": percentile(flood.lags, 0.99),
        "overload_cpu": flood.cpu,
    }


def swap(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """A deployment and a rollback under load: nothing fails, and each answer is one version's, as its row says."""
    console, slug = bench.consoles[name], bench.encoder
    first, second = console.ask(f"live({slug!r})"), console.ask(f"second_version({slug!r})")
    rate, seconds = SWAP_SHARE * peak(bench, name, server), max(8.0, bench.seconds)
    came: list[Outcome] = []
    with exact(bench, name) as note:
        options = {"most": MOST_CONNECTIONS, "keep": True}
        asking = threading.Thread(target=lambda: came.append(ask_open(bench.target(server), rate, seconds, **options)))
        asking.start()
        time.sleep(seconds / 4)
        deployed = time.monotonic()
        console.ask(f"deploy({slug!r}, {second})")
        time.sleep(max(0.0, deployed + seconds / 2 - time.monotonic()))
        returned = time.monotonic()
        console.ask(f"rollback({slug!r})")
        asking.join()
        if not came:
            raise SystemExit("The load of the swap could not be made.")
        note(outcome := came[0])
    if outcome.failed:
        bench.faults.append(f"{name}: {outcome.failed} requests failed while versions were swapped.")
    sent = [(answer.sent, answer.model_version) for answer in outcome.kept]
    old, new = f"{slug}/{first}", f"{slug}/{second}"
    if {version for _, version in sent} != {old, new}:
        bench.faults.append(f"{name}: answers came from {sorted({version for _, version in sent})}.")
    return {
        "swap_answers": outcome.answers,
        "swap_failed": outcome.failed,
        "swap_p99": outcome.percentile(0.99),
        "deploy_seconds": _last(old, sent, deployed, returned),
        "rollback_seconds": _last(new, sent, returned, float("inf")),
    }


def _last(version: str, sent: list[tuple[float, str]], since: float, until: float) -> float:
    """Seconds after `since` of the last request in between that `version` answered still."""
    return max(
        (when - since for when, answered_by in sent if since <= when < until and answered_by == version), default=0
    )


def classic(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """The same for a model that takes next to no time: what the server costs by itself."""
    target = bench.target(server, bench.classic)
    load(target, WARM_SECONDS)
    with counted(bench, name) as note:
        note(turn := load(target, bench.seconds))
    return {"classic_rate": turn.rate, "classic_p50": turn.p50, "classic_p99": turn.p99}


def startup(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """Seconds from the start of gunicorn until it is ready, and memory of the largest process, after answering."""
    load(bench.target(server), WARM_SECONDS)
    return {"ready_seconds": server.ready_seconds, "memory_mb": max(server.memory())}


def file(bench: Bench, name: str, server: Server) -> dict[str, Any]:
    """`predict --file` beside the raw forward pass on all cores, which is measured before and after.

    Once only, since no row is written whatever the database.
    """
    if name != next(iter(bench.sites)):
        return {}
    console, scratch = bench.consoles[name], Path(bench.bodies).parent
    before = ceiling.ceiling(bench.version, bench.bodies, bench.seconds)
    count = round(before["rate"] * FILE_LOADS * bench.seconds)
    source, target = scratch / "batch.csv", scratch / "batch.answers.csv"
    texts = [json.loads(line)["text"] for line in Path(bench.bodies).read_text(encoding="utf-8").splitlines()]
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([texts[number % len(texts)]] for number in range(count))])
    rows, spent, began = console.ask("count()"), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    seen = watch_file(bench.sites[name], bench.encoder, source, target)
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    again = ceiling.ceiling(bench.version, bench.bodies, bench.seconds)
    raw = (before["rate"] + again["rate"]) / 2
    with target.open(encoding="utf-8", newline="") as stream:
        answered = sum(1 for row in csv.DictReader(stream) if row["label"] and not row["error"])
    target.unlink()
    if answered != count or console.ask("count()") != rows:
        bench.faults.append(f"{name}: {answered} of {count} rows of a file were answered, or some were recorded.")
    (first, at), (last, until) = seen[len(seen) // 3], seen[-1]
    return {
        "file_rows": count,
        "file_raw_rate": raw,
        "file_rate": count / took,
        "file_cpu_share": (before["cpu"] + again["cpu"]) / 2 * count / cpu,
        "file_share": count / took / raw,
        "file_steady_share": (last - first) / (until - at) / raw if until > at else float("nan"),
    }


def watch_file(site: Installation, slug: str, source: Path, target: Path) -> list[tuple[int, float]]:
    """Run `predict --file`; (rows safe, monotonic time), each time that it noted more of them."""
    command = [sys.executable, "manage.py", "predict", slug, "--file", str(source), "--output", str(target)]
    process = subprocess.Popen(command, env=site.environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    note, seen = target.with_name(target.name + ".part.json"), [(0, time.monotonic())]
    while process.poll() is None:
        time.sleep(0.02)
        with suppress(OSError, ValueError):
            rows = json.loads(note.read_text(encoding="utf-8"))["reached"]["rows"]
            if rows > seen[-1][0]:
                seen.append((rows, time.monotonic()))
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"predict --file failed: {process.stderr.read().strip()}")
    return seen


ON_ONE_SERVER = {
    "startup": startup,
    "latency": latency,
    "overload": overload,
    "swap": swap,
    "classic": classic,
    "file": file,
}


def behaviour(bench: Bench, chosen: list[str]) -> dict[str, Any]:
    """The chosen scenarios of `ON_ONE_SERVER`, one after the other, on each database."""
    found: dict[str, Any] = {}
    for name, site in bench.sites.items():
        with serving(site) as server:
            found[name] = {}
            for each in chosen:
                found[name] |= ON_ONE_SERVER[each](bench, name, server)
                print(f"{name}: {each} done", flush=True)
    return found
