"""Files are believed by their content; bad rows are named, good ones are read."""

import gzip
import json

import pandas as pd
import pytest

from training.exporters import write_rows
from training.importers import ImportRefused, Limits, chunks, open_source


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(path, limits=None):
    """Rows as {line: cells} and errors as {line: reason}."""
    rows, errors = {}, {}
    for chunk in chunks(open_source(path, path.name, limits)):
        rows |= {int(line): list(cells) for line, *cells in chunk.frame.itertuples(name=None)}
        errors |= {error.line: error.reason for error in chunk.errors}
    return rows, errors


CSV = "text,label\nhello,a\nbye,b\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", CSV),
        ("rows.csv", "\ufeff" + CSV),
        ("rows.csv", CSV.replace(",", ";")),
        ("rows.csv", CSV.replace("\n", "\r\n")),
        ("rows.csv", CSV.encode("utf-16")),
        ("rows.csv.gz", gzip.compress(CSV.encode("utf-16"))),
        ("rows.csv.gz", gzip.compress(CSV.encode())),
        ("rows.tsv", CSV.replace(",", "\t")),
        ("rows.jsonl", '{"text": "hello", "label": "a"}\n\n{"label": "b", "text": "bye"}\n'),
        ("rows.json", '[{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]'),
        ("rows.json", '{"data": [{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]}'),
        ("rows.json", '{"records": [{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]}'),
        ("rows.json.gz", gzip.compress(b'{"text": ["hello", "bye"], "label": ["a", "b"]}')),
    ],
)
def test_every_text_format_gives_the_same_rows(write, name, content):
    rows, errors = read(write(name, content))
    assert list(rows.values()) == [["hello", "a"], ["bye", "b"]]
    assert not errors


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet_is_read(tmp_path, suffix):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["hello", "bye"], "label": ["a", "b"]}).to_parquet(path)
    if suffix:
        packed = tmp_path / "rows.parquet.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    assert list(read(path)[0].values()) == [["hello", "a"], ["bye", "b"]]


def test_bad_rows_are_named_by_line_and_the_others_read(write):
    rows, errors = read(write("rows.csv", 'text,label\none,a\ntwo\n"three\nlines",b\nfour,"a"x\nfive,b\n'))
    assert rows == {2: ["one", "a"], 4: ["three\nlines", "b"], 7: ["five", "b"]}
    assert errors.keys() == {3, 6}
    assert errors[3] == "1 columns where the header has 2."


@pytest.mark.parametrize("before", [0, 2_000])
def test_a_nul_costs_no_file(write, before):
    rows = "".join(f"row {number},x\n" for number in range(before))
    found, errors = read(write("rows.csv", f"text,label\n{rows}a\x00b,x\nc,y\n".encode()))
    assert (list(found.values())[-2:], errors) == ([["ab", "x"], ["c", "y"]], {})
    found, errors = read(write("rows.jsonl", b'{"text": "ab", "label": "x"}\n{"text": "a\x00b", "label": "x"}\n'))
    assert (list(found), list(errors)) == ([1], [2])


def test_an_unclosed_quote_costs_its_own_line_only(write):
    body = "".join(f"row {number},a\n" for number in range(30_000))
    rows, errors = read(write("rows.csv", f'text,label\n"open,a\n{body}'))
    assert errors == {2: "A quote is opened and never closed."}
    assert len(rows) == 30_000


def test_a_bad_line_of_jsonl_is_named(write):
    rows, errors = read(write("rows.jsonl", '{"text": "a"}\n{"text": \n[1]\n{"text": NaN}\n{"text": "b"}\n'))
    assert rows == {1: ["a"], 5: ["b"]}
    assert errors.keys() == {2, 3, 4}


def test_metadata_of_a_json_file_is_kept(write):
    path = write("rows.json", json.dumps({"metadata": {"task": "x"}, "data": [{"text": "a"}]}))
    assert open_source(path, path.name).metadata == {"task": "x"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", b"", "empty"),
        ("rows.csv", "text,label\n", "no rows"),
        ("rows.xlsx", b"PK\x03\x04", "must end in"),
        ("rows", CSV, "must end in"),
        ("rows.csv", gzip.compress(b"a"), "is gzip by its content"),
        ("rows.csv", b"PAR1...", "is Parquet by its content"),
        ("rows.csv", b"PK\x03\x04zip", "zip"),
        ("rows.parquet", CSV, "not Parquet"),
        ("rows.csv", "[1]", "looks like JSON"),
        ("rows.json", CSV, "does not look like JSON"),
        ("rows.csv.gz", CSV, "not gzipped"),
        ("rows.csv.gz", gzip.compress(gzip.compress(b"a")), "is gzip by its content"),
        ("rows.csv.gz", gzip.compress(CSV.encode() * 9999)[:-20], "damaged"),
        ("rows.csv", CSV.encode("utf-16")[:-1], "not UTF-16"),
        ("rows.csv", b"text,label\nok,a\ncaf\xe9,b\n", "Line 3 of rows.csv is not UTF-8 (byte 0xe9)"),
        ("rows.csv", b"te\x00xt,label\n", "no text file"),
        ("rows.csv", CSV.encode("utf-16")[2:], "no text file"),
        ("rows.csv", b"text,label\n" + bytes(range(32)) * 9, "no text file"),
        ("rows.csv", b"text,label\n\x00\xff\xfe" + b"a,b\n" * 50, "no text file"),
        ("rows.csv", "a,a\n1,2\n", "more than one column 'a'"),
        ("rows.json", "{", "not valid JSON"),
        ("rows.json", '{"a": 1}', "expected a list of objects"),
        ("rows.json", "[" * 100_000, "not valid JSON"),
        ("rows.parquet", b"PAR1 nonsense PAR1", "damaged Parquet"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_reason(write, name, content, says):
    with pytest.raises(ImportRefused) as refusal:
        read(write(name, content))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_gzip_bomb_stops_at_the_cap(write):
    bomb = gzip.compress(b"text,label\n" + b"a,b\n" * 1_000_000)
    with pytest.raises(ImportRefused, match="once unpacked"):
        read(write("rows.csv.gz", bomb), Limits(unpacked=100_000))


def test_an_endless_line_is_an_error_of_its_own(write):
    rows, errors = read(write("rows.csv", f"text,label\n{'x' * 5_000},a\nshort,b\n"), Limits(line=1_000))
    assert rows == {3: ["short", "b"]}
    assert errors == {2: "The line is over 1000 bytes."}


def test_a_file_of_an_older_encoding_is_read_where_it_is_named(write):
    path = write("rows.csv", "text,label\ncafé,a\n".encode("cp1252"))
    source = open_source(path, path.name, encoding="cp1252")
    assert source.sample.loc[2].tolist() == ["café", "a"]
    with pytest.raises(ImportRefused, match="is not UTF-8"):
        open_source(path, path.name)
    with pytest.raises(ImportRefused, match="not an encoding that is read here"):
        open_source(path, path.name, encoding="utf-7")


def test_a_stray_byte_of_a_named_encoding_is_refused(write):
    path = write("rows.csv", b"text,label\nok,a\n\x81,b\n")
    with pytest.raises(ImportRefused, match="not Windows-1252"):
        read_as(path, "cp1252")


def read_as(path, encoding):
    return list(chunks(open_source(path, path.name, encoding=encoding)))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("text", ["=1+1", "-x", "'=1", "''+x", "'tis", "＝x", "@a", "a,b\nc", "مرحبا"])
def test_what_is_exported_comes_back_as_it_was(tmp_path, kind, text):
    path = tmp_path / f"out.{kind}"
    assert write_rows(path, ["text", "label"], [{"text": text, "label": "a"}]) == 1
    assert list(read(path)[0].values()) == [[text, "a"]]
