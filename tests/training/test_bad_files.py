"""Files that mean harm or cannot be meant: one clear line, nothing changed, and memory stays where it was."""

import gzip
import io
import json
import subprocess
import sys
import textwrap
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kalimtak.core.errors import InvalidInput
from registry.models import Classifier
from training import services
from training.models import Dataset, TrainingDataItem

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]
MOST_GROWTH = 150  # MB that reading a bad file may take beside what the libraries take
NESTED = "[" * 200_000 + "]" * 200_000


def zipped():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", "text,label\n" + "a,glad\n" * 100_000)
    return packed.getvalue()


def columns(count):
    return ",".join(f"c{number}" for number in range(count)) + "\n" + ",".join("x" * count) + "\n"


BAD = {
    "a zip by another name": ("rows.csv", zipped(), "zip archive"),
    "a tar": ("rows.tar", b"x", "must end in"),
    "gzip within gzip": ("rows.csv.gz", gzip.compress(gzip.compress(b"a")), "is gzip by its content"),
    "a gzip bomb": (
        "rows.csv.gz",
        gzip.compress(b"text,label\n" + (b"a" * 1_000 + b",glad\n") * 21_000),
        "once unpacked",
    ),
    "an endless first line": ("rows.csv", b"x" * 3_000_000, "header"),
    "a million columns": ("rows.csv", columns(300_000), "header"),
    "too many columns": ("rows.csv", columns(5_000), "5000 columns"),
    "NUL at the start": ("rows.csv", b"\x00text,label\n", "no text file"),
    "another encoding": ("rows.csv", "text,label\nprüfen,glad\n".encode("latin-1"), "not UTF-8"),
    "half of a UTF-16 character": ("rows.csv", "text,label\na,glad\n".encode("utf-16")[:-1], "not UTF-16"),
    "deep JSON": ("rows.json", NESTED, "not valid JSON"),
    "deep JSON in an object": ("rows.json", '{"data": ' + NESTED + "}", "not valid JSON"),
    "a number of ten million digits": ("rows.json", "[" + "9" * 1_000_000 + "]", "not valid JSON"),
    "NaN": ("rows.json", '[{"text": NaN, "label": "glad"}]', "not valid JSON"),
    "numbers for rows": ("rows.json", "[1, 2, 3]", "no row that can be read"),
    "damaged Parquet": ("rows.parquet", b"PAR1" + b"\xff" * 400 + b"PAR1", "damaged Parquet"),
    "Parquet that ends early": ("rows.parquet", b"PAR1" + b"\x00" * 4, "damaged Parquet"),
}


@pytest.fixture
def load(mood, settings):
    settings.KALIMTAK_MAX_UPLOAD = 8 * 2**20

    def load(name, content, **values):
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        dataset = services.dataset_add(mood, source=io.BytesIO(raw), name=name, actor="olga", **values)
        return services.dataset_load(dataset)

    return load


@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_in_one_line_and_nothing_changes(load, mood, case):
    name, content, says = BAD[case]
    before = list(Classifier.objects.values())
    with pytest.raises(InvalidInput) as refusal:
        load(name, content)
    assert says in refusal.value.message
    assert "\n" not in refusal.value.message
    assert len(refusal.value.message) < 500
    assert not TrainingDataItem.objects.exists()
    assert list(Classifier.objects.values()) == before
    assert not Dataset.objects.exclude(state="failed").exists()


SCRIPTS = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "javascript:alert(1)", "'; DROP TABLE x; --")


@pytest.mark.parametrize(
    "text", [*SCRIPTS, "=cmd|' /C calc'!A0", "\u202egnirts", "{{ 7 * 7 }}", "%s %(x)s {0}", "a\x00b"]
)
def test_hostile_texts_are_texts(load, text):
    load("rows.jsonl", json.dumps({"text": text, "label": "glad"}) + "\n")
    assert TrainingDataItem.objects.get().fields["text"] == text.replace("\x00", "")


@pytest.mark.parametrize("label", [*SCRIPTS, "glad\x00", "\u202eglad", "x" * 10_000, "glad\nsad"])
def test_hostile_labels_are_unknown_ones_in_a_short_line(load, label):
    dataset = load("rows.jsonl", "".join(json.dumps(row) + "\n" for row in (
        {"text": "a", "label": "glad"}, {"text": "b", "label": label},
    )))  # fmt: skip
    (error,) = dataset.report["errors"] or [{"reason": "Unknown", "line": 2}]
    assert error["reason"].startswith("Unknown")
    assert len(error["reason"]) < 200
    assert error["reason"].isprintable()


def test_names_of_fields_that_no_database_stores(load):
    rows = [{"text": "a", "label": "glad"}, {"text": "b", "label": "sad", "\ud800": "x"}, {"text\x00": "c"}]
    dataset = load("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [error["line"] for error in dataset.report["errors"]] == [2, 3]


def test_names_of_columns_with_nul_in_parquet(load, tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": ["glad"], "odd\x00": ["x"]}), path)
    assert load("rows.parquet", path.read_bytes()).rows == 1


def test_lone_surrogates_and_duplicate_keys(load):
    dataset = load(
        "rows.jsonl",
        '{"text": "ok", "label": "glad"}\n{"text": "\\ud800", "label": "glad"}\n'
        '{"text": "a", "text": "b", "label": "sad"}\n',
    )
    assert [error["line"] for error in dataset.report["errors"]] == [2]
    assert set(TrainingDataItem.objects.values_list("fields__text", flat=True)) == {"ok", "b"}


def test_parquet_of_odd_types_is_read_row_by_row(load, tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table(
        {
            "text": pa.array(["fine", None, "also fine"]),
            "label": pa.array(["glad", "sad", None]),
            "raw": pa.array([b"\xff", b"", None]),
            "when": pa.array([date(2026, 1, 1)] * 3),
            "price": pa.array([Decimal("1.10")] * 3),
            "nested": pa.array([{"a": [{"b": 2}]}] * 3),
            "listed": pa.array([["x"], [], None]),
        }
    )
    pq.write_table(table, path)
    dataset = load("rows.parquet", path.read_bytes())
    assert {error["line"]: error["reason"] for error in dataset.report["errors"]} == {
        2: "An empty text.",
        3: "No label.",
    }
    pq.write_table(pa.table({"text": [[1]], "label": ["glad"]}), path)
    with pytest.raises(InvalidInput, match="The text is a list"):
        load("rows.parquet", path.read_bytes())
    pq.write_table(pa.table({"text": pa.array([b"bytes"]), "label": ["glad"]}), path)
    with pytest.raises(InvalidInput, match="The text is a bytes"):
        load("rows.parquet", path.read_bytes())


def test_a_dictionary_of_labels_as_parquet_and_pandas_have_it(load, tmp_path):
    path = tmp_path / "rows.parquet"
    labels = pa.array(["glad", "sad"]).dictionary_encode()
    pq.write_table(pa.table({"text": ["a", "b"], "label": labels}), path)
    assert load("rows.parquet", path.read_bytes()).rows == 2


# Memory ----------------------------------------------------------------------------------------------------------

WATCHED = """
import resource, sys
from pathlib import Path
from training.importers import ImportRefused, Limits, chunks, open_source
import pandas, pyarrow.parquet

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before, path = peak(), Path(sys.argv[1])
try:
    for chunk in chunks(open_source(path, path.name)):
        pass
except ImportRefused as refusal:
    print(refusal)
print(peak() - before)
"""


def grown(path):
    """What a process prints that reads the file, and by how many MB it grew."""
    words = [sys.executable, "-c", textwrap.dedent(WATCHED), str(path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    *said, size = done.stdout.splitlines()
    return "\n".join(said), int(size)


def a_line(path):
    with path.open("wb") as file:
        file.write(b"text,label\n")
        for _ in range(400):
            file.write(b"x" * 2**20)


def a_packed_line(path):
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"text,label\n")
        for _ in range(400):
            file.write(b"\x00" * 2**20)


def many_rows(path):
    with path.open("wb") as file:
        file.write(b"text,label\n")
        for _ in range(400):
            file.write(b"some text of some words,glad\n" * 10_000)


@pytest.mark.slow
@pytest.mark.own_servers  # or rather none: a process that only reads a file
@pytest.mark.parametrize(
    ("name", "write"),
    [("rows.csv", a_line), ("rows.csv.gz", a_packed_line), ("rows.csv", many_rows), ("rows.jsonl", a_line)],
)
def test_memory_stays_where_it_was(tmp_path, name, write):
    path = tmp_path / name
    write(path)
    assert grown(path)[1] < MOST_GROWTH
