"""What a check of the doctor says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

OK, WARNING, PROBLEM, SKIPPED = "ok", "warning", "problem", "skipped"


@dataclass(frozen=True)
class Diagnosis:
    """One line: `state` is ok, warning (works, but look at it), problem (does not work) or skipped."""

    state: str
    check: str
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Options:
    """How thoroughly to look. `quick` loads no model and reads no artefact; `url` is where a web server should be."""

    quick: bool = False
    url: str = ""


Check = Callable[[Options], Iterator[Diagnosis]]


def ok(check: str, what: str) -> Diagnosis:
    return Diagnosis(OK, check, what)


def warning(check: str, what: str, remedy: str) -> Diagnosis:
    return Diagnosis(WARNING, check, what, remedy)


def problem(check: str, what: str, remedy: str) -> Diagnosis:
    return Diagnosis(PROBLEM, check, what, remedy)


def first_line(error: BaseException) -> str:
    """What an error says, without the further lines in which a database quotes rows."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def ago(seconds: float) -> str:
    """A span of time in words, `4 min`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
