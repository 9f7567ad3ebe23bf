"""The figures of `bench/serve.py` as Markdown tables for docs/benchmarks.md, and as a picture."""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.scenarios import CEILING, OURS

TARGETS = {CEILING: 0.6, "FastAPI + pipeline": 8.0, "LitServe": 2.5}  # ours as a multiple of theirs
MS = 1000.0
Figures = dict[str, Any]

# What is measured on one server: words, value, how it is shown, what to reach.
BEHAVIOUR: tuple[tuple[str, Callable[[Figures], float], str, str], ...] = (
    ("One connection, p50", lambda f: f["alone_p50"] * MS, "{:.1f} ms", "< 5 ms"),
    ("Open loop at 60 % of saturation, requests/s", lambda f: f["steady_rate"], "{:,.0f}", ""),
    ("– p50, counted from when due", lambda f: f["steady_p50"] * MS, "{:.1f} ms", ""),
    ("– p99, counted from when due", lambda f: f["steady_p99"] * MS, "{:.1f} ms", "< 40 ms"),
    ("– the generator: p99 of its own delay", lambda f: f["steady_lag_p99"] * MS, "{:.1f} ms", ""),
    ("– the generator: share of a core", lambda f: f["steady_cpu"], "{:.0%}", ""),
    ("Overload, requests/s", lambda f: f["overload_rate"], "{:,.0f}", "3 × peak"),
    ("– goodput of the peak", lambda f: f["goodput_share"], "{:.0%}", "≥ 90 %"),
    ("– refused with 503", lambda f: f["refused"], "{:,.0f}", ""),
    ("– never answered", lambda f: f["unanswered"], "{:,.0f}", "0"),
    ("– p99 of the refusals", lambda f: f["refusal_p99"] * MS, "{:.1f} ms", "≤ 20 ms"),
    ("– p99 of the answers", lambda f: f["overload_p99"] * MS, "{:,.0f} ms", ""),
    ("– the generator: share of a core", lambda f: f["overload_cpu"], "{:.0%}", ""),
    ("Deployment and rollback under load: answers", lambda f: f["swap_answers"], "{:,.0f}", ""),
    ("– failed", lambda f: f["swap_failed"], "{:,.0f}", "0"),
    ("– last answer of the version before, after deploying", lambda f: f["deploy_seconds"], "{:.2f} s", ""),
    ("– and after rolling back", lambda f: f["rollback_seconds"], "{:.2f} s", "< 5 s"),
    ("Classic model, requests/s", lambda f: f["classic_rate"], "{:,.0f}", "1,500"),
    ("`predict --file`, rows", lambda f: f["file_rows"], "{:,.0f}", ""),
    ("– texts/s of the whole command", lambda f: f["file_rate"], "{:,.0f}", ""),
    ("– of the raw forward pass on all cores", lambda f: f["file_share"], "{:.0%}", ""),
    ("– the same, once it is under way", lambda f: f["file_steady_share"], "{:.0%}", "≥ 90 %"),
    ("– processor time of that pass in all that was used, start included", lambda f: f["file_cpu_share"], "{:.0%}", ""),
    ("Ready after the start", lambda f: f["ready_seconds"], "{:.1f} s", "≤ 5 s"),
    ("Memory of the largest process", lambda f: f["memory_mb"], "{:,.0f} MB", "≤ 400 MB"),
)


def tables(results: dict[str, Any]) -> str:
    parts = [results["setting"]]
    if "throughput" in results:
        parts += [throughput_table(results["throughput"]), agreement_lines(results["agreement"])]
    if results.get("behaviour"):
        parts.append(behaviour_table(results["behaviour"]))
    return "\n\n".join(parts)


def medians(turns: list[Figures]) -> Figures:
    """Of every figure over the rounds."""
    numbers = [name for name, value in turns[0].items() if isinstance(value, float | int)]
    return {name: statistics.median(turn[name] for turn in turns) for name in numbers}


def throughput_table(throughput: dict[str, list[Figures]]) -> str:
    """Medians over the rounds, the lowest and highest rate, and what ours is of each."""
    figures = {name: medians(turns) for name, turns in throughput.items()}
    ours = [name for name in figures if name.startswith(OURS)]
    heads = [f"{name} is" for name in ours]
    lines = [
        f"| | Requests/s (rounds) | p50 | p99 | {' | '.join([*heads, 'Target'])} |",
        "|---" * (len(ours) + 5) + "|",
    ]
    for name, found in figures.items():
        rates = [turn["rate"] for turn in throughput[name]]
        times = [f"{figures[each]['rate'] / found['rate']:.2f} ×" if name not in ours else "" for each in ours]
        spread = f"{found['rate']:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        target = f"{TARGETS[name]} ×" if name in TARGETS else ""
        cells = [name, spread, f"{found['p50'] * MS:.1f} ms", f"{found['p99'] * MS:.0f} ms", *times, target]
        lines.append(f"| {' | '.join(cells)} |")
    for name in TARGETS:
        if name not in figures:
            lines.append(f"| {name} | left out: not installed (`--install-peers`) |{' |' * (len(ours) + 3)}")
    tools = {(turn["tool"], round(turn["generator_cpu"], 2)) for name in ours for turn in throughput[name]}
    shares = ", ".join(sorted(f"{tool} {share:.0%}" for tool, share in tools))
    return "\n".join(lines) + f"\n\nThe load generator took of one core: {shares}."


def agreement_lines(agreement: Figures) -> str:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in agreement["with_graph"].items())
    among = agreement["among_peers"]
    peers = f" The peers give the same label as each other for {among:.1%}." if among is not None else ""
    return f"Same label as the graph that the ceiling runs, {agreement['texts']} texts: {shares}.{peers}"


def behaviour_table(behaviour: dict[str, Figures]) -> str:
    lines = [f"| | {' | '.join([*behaviour, 'Target'])} |", "|---" * (len(behaviour) + 2) + "|"]
    for words, value, shape, target in BEHAVIOUR:
        cells = [_cell(value, shape, figures) for figures in behaviour.values()]
        if any(cells):
            lines.append(f"| {' | '.join([words, *cells, target])} |")
    return "\n".join(lines)


def _cell(value: Callable[[Figures], float], shape: str, figures: Figures) -> str:
    """Empty where the scenario did not run."""
    try:
        number = value(figures)
    except KeyError:
        return ""
    return "–" if math.isnan(number) else shape.format(number)


def plot(throughput: dict[str, list[Figures]], path: Path) -> None:
    """Requests a second of everybody as bars, with every round as a dot; for light and dark pages alike."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(reversed(throughput))
    rates = [medians(throughput[name])["rate"] for name in names]
    ink, ours, others = "#808890", "#2f9e8f", "#8f9bb3"
    figure = Figure(figsize=(8, 0.55 * len(names) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.barh(names, rates, color=[ours if name.startswith(OURS) else others for name in names], height=0.62)
    for row, (name, rate) in enumerate(zip(names, rates, strict=True)):
        every = [turn["rate"] for turn in throughput[name]]
        axes.plot(every, [row] * len(every), ".", color=ink, markersize=5)
        axes.annotate(f"{rate:,.0f}", (max(every), row), (8, 0), textcoords="offset points", va="center", color=ink)
    axes.set_xlabel("answers a second, higher is better", color=ink)
    axes.tick_params(colors=ink, length=0)
    axes.margins(x=0.12)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "left")
        spine.set_color(ink)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160, transparent=True)
