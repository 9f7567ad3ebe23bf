"""How much personal data redaction finds, how much of what it finds is personal data, and how fast.

The speed of the other steps that read every word stands beside it. Counted are the kinds that a pattern can know:
e-mail and IP addresses, telephone, card and account numbers, and dates of birth. The set `pii` calls every date and
weekday DATE_TIME; a date of birth is one that names day, month and year in a text that says "born" or "birth". A span
is found when a finding of its kind covers all of it; a finding is right when it covers a span of its kind and reaches
no letter or digit beyond. Below stands the whole set, names, places and organisations included, which patterns do not
know. Without the set, sentences made here are counted.

    python bench/redact.py
    python bench/redact.py --part train --show
    python bench/redact.py --check
"""

import argparse
import csv
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.datasets import data_folder

from kalimtak.core import pii
from kalimtak.core.national_numbers import luhn, mod_97
from training.etl.content import shipped_words
from training.etl.domains import find_domains

# Kind of a finding → type in the set. A national number has no type there: any finding of it is wrong.
TYPES = {
    "EMAIL": "EMAIL_ADDRESS",
    "PHONE": "PHONE_NUMBER",
    "CARD": "CREDIT_CARD",
    "IBAN": "IBAN_CODE",
    "IP": "IP_ADDRESS",
    "BIRTH_DATE": "DATE_OF_BIRTH",
}
LEAST_PRECISION, LEAST_RECALL = 0.95, 0.90
PUBLISHED = "Presidio Analyzer, all 1,500 rows of the set, by its authors"
PUBLISHED_PRECISION, PUBLISHED_RECALL = 0.685, 0.603

_WHOLE_DATE = re.compile(r"\d{1,4}\D\d{1,2}\D\d{1,4}|.*[A-Za-z]{3}.*\d{4}")
_BIRTH = re.compile(r"\b(?:born|birth)", re.IGNORECASE)
_EDGE = re.compile(r"^[\W_]*|[\W_]*$")


@dataclass(frozen=True)
class Span:
    """Personal data of a type of the set at text[start:end]."""

    type: str
    start: int
    end: int


Rows = Sequence[tuple[str, Sequence[Span]]]


def main() -> None:
    options = arguments()
    name, rows = ("sentences made here", made_rows()) if options.check else chosen_rows(options.part)
    found, right, missed = Counter[str](), Counter[str](), Counter[str]()
    for text, spans in rows:
        count(text, spans, found, right, missed, show=options.show)
    print(f"{name}, {len(rows):,} texts\n")
    print("| Type | Spans | Found rightly | Found wrongly | Precision | Recall |\n|---|---|---|---|---|---|")
    for kind in TYPES.values():
        print(line(kind, found[kind], right[kind], missed[kind]))
    known = [
        sum(counts[kind] for kind in found.keys() | missed.keys() if kind in KNOWN) for counts in (found, right, missed)
    ]
    print(line("**what a pattern can know**", *known))
    print(line("the whole set", found.total(), right.total(), missed.total()))
    print(f"| {PUBLISHED} | | | | {PUBLISHED_PRECISION:.3f} | {PUBLISHED_RECALL:.3f} |")
    print(f"\n{speed([text for text, _ in rows]):,.0f} texts/s on one core")
    if texts := [] if options.check else ordinary_texts():
        length = sum(map(len, texts)) / len(texts)
        print(f"On {len(texts):,} ordinary texts of {length:.0f} characters, texts/s on one core:")
        print(f"- redaction {speed(texts):,.0f}")
        print(f"- blocked words {speed(texts, shipped_words().first_in):,.0f}")
        domains = find_domains(texts)
        if domains is not None:
            print(f"- domains {speed(texts, lambda text: domains.of((text,))):,.0f}")
    precision, recall = ratio(known[1], known[0]), ratio(known[1], known[1] + known[2])
    if options.check and (precision < LEAST_PRECISION or recall < LEAST_RECALL):
        sys.exit(f"Precision {precision:.3f} and recall {recall:.3f}; at least {LEAST_PRECISION} and {LEAST_RECALL}.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("train", "test"), default="test", help="of the set `pii`")
    parser.add_argument("--show", action="store_true", help="print each miss and each wrong finding")
    parser.add_argument("--check", action="store_true", help="sentences made here, for continuous integration")
    return parser.parse_args()


# Counting ---------------------------------------------------------------------------------------------------------

KNOWN = {*TYPES.values(), "NATIONAL_ID", "CREDENTIALS"}


def count(
    text: str,
    spans: Sequence[Span],
    found: Counter[str],
    right: Counter[str],
    missed: Counter[str],
    *,
    show: bool,
) -> None:
    """Add one text's findings (`found`, of which `right`) and the spans that no finding covers (`missed`)."""
    findings = [Span(TYPES.get(each.kind, each.kind), each.start, each.end) for each in pii.find(text)]
    covered = set()
    for finding in findings:
        found[finding.type] += 1
        over = [span for span in spans if span.type == finding.type and covers(text, finding, span)]
        if over and max(span.end for span in over) >= trimmed(text, finding).end:
            right[finding.type] += 1
        elif show:
            print(f"wrong  {finding.type}: {text[finding.start : finding.end]!r} in {text[:80]!r}")
        covered.update(over)
    for span in spans:
        if span not in covered:
            missed[span.type] += 1
            if show and span.type in KNOWN:
                print(f"missed {span.type}: {text[span.start : span.end]!r} in {text[:80]!r}")


def covers(text: str, finding: Span, span: Span) -> bool:
    """Whether every letter and digit of `span` lies in `finding`."""
    inner = trimmed(text, span)
    return finding.start <= inner.start and inner.end <= finding.end


def trimmed(text: str, span: Span) -> Span:
    """Without signs at the ends."""
    edges = list(_EDGE.finditer(text[span.start : span.end]))
    return Span(span.type, span.start + edges[0].end(), span.start + edges[-1].start())


def line(name: str, found: int, right: int, missed: int) -> str:
    figures = (
        f"{right + missed} | {right} | {found - right} | {ratio(right, found):.3f} | {ratio(right, right + missed):.3f}"
    )
    return f"| {name} | {figures} |"


def ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def speed(texts: Sequence[str], look: Callable[[str], object] = pii.redact) -> float:
    """Texts per second of processor time, of at least a second."""
    rounds, begun = 0, time.process_time()
    while time.process_time() - begun < 1.0:
        for text in texts:
            look(text)
        rounds += 1
    return rounds * len(texts) / (time.process_time() - begun)


# Texts ------------------------------------------------------------------------------------------------------------


def chosen_rows(part: str) -> tuple[str, Rows]:
    path = data_folder() / "pii" / f"{part}.csv"
    if not path.is_file():
        print(f"Not here: {path}. Set KALIMTAK_BENCH_DATA to the folder that holds `pii`.")
        return "sentences made here", made_rows()
    with path.open(encoding="utf-8", newline="") as stream:
        return f"pii, {part}", [(row["text"], list(spans_of(row))) for row in csv.DictReader(stream)]


def ordinary_texts() -> list[str]:
    """Of the public sets that are there, in which personal data are rare."""
    paths = [data_folder() / name / "train.csv" for name in ("emotion", "sms_spam", "snips", "trec6", "mrpc_pairs")]
    texts = []
    for path in filter(Path.is_file, paths):
        with path.open(encoding="utf-8", newline="") as stream:
            texts += [row["text"] for row in csv.DictReader(stream)]
    return texts


def spans_of(row: dict[str, str]) -> Iterator[Span]:
    for span in json.loads(row["spans"]):
        is_birth = span["type"] == "DATE_TIME" and _WHOLE_DATE.fullmatch(span["value"]) and _BIRTH.search(row["text"])
        yield Span("DATE_OF_BIRTH" if is_birth else span["type"], span["start"], span["end"])


def made_rows() -> Rows:
    """Sentences around values drawn with a fixed seed, with valid check digits, and some without any."""
    draw = random.Random(7)
    rows: list[tuple[str, Sequence[Span]]] = []
    for _ in range(40):
        values = {
            "EMAIL_ADDRESS": draw.choice(("jo", "amal.k", "x_1")) + draw.choice(("@example.org", "@mail.example.com")),
            "PHONE_NUMBER": f"+49 {draw.randrange(30, 99)} {draw.randrange(10**6, 10**7)}",
            "CREDIT_CARD": valid(luhn, lambda: "4" + digits(draw, 15)),
            "IBAN_CODE": valid(lambda number: mod_97(number) == 1, lambda: "DE" + digits(draw, 20)),
            "IP_ADDRESS": ".".join(str(draw.randrange(1, 255)) for _ in range(4)),
            "DATE_OF_BIRTH": f"{draw.randrange(1, 13)}/{draw.randrange(1, 29)}/{draw.randrange(1930, 2010)}",
        }
        sentences = {
            "EMAIL_ADDRESS": "Write to {} or to nobody.",
            "PHONE_NUMBER": "Ring me under {} after five",
            "CREDIT_CARD": "charged {} twice!",
            "IBAN_CODE": "send it to {}, please",
            "IP_ADDRESS": "host {} does not answer",
            "DATE_OF_BIRTH": "She was born on {} in a village.",
        }
        for kind, value in values.items():
            start = sentences[kind].index("{}")
            rows.append((sentences[kind].format(value), [Span(kind, start, start + len(value))]))
        rows.append((f"I ordered {draw.randrange(2, 90)} of them on 2024-01-{draw.randrange(10, 29)} at 12:30:45", []))
    return rows


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(count))


def valid(is_valid: Callable[[str], bool], drawn: Callable[[], str]) -> str:
    """The first number drawn whose check digits are right."""
    return next(number for number in iter(drawn, "") if is_valid(number))


if __name__ == "__main__":
    main()
