"""`manage.py predict --file` on long files: interrupted in every way, by several processes, in the end all the same."""

import csv
import gzip
import json
import os
import signal

import pytest

from tests.installation import Installation
from tests.services import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.own_servers]
ROWS = 60_000
DEATHS = ("draft.unnoted:1", "draft.noted:1")
WORDS = ("rain", "soup", "wind", "bread", "storm", "apple", "snow", "rice")


def text_of(number):
    return f"{WORDS[number % 8]}, {WORDS[number // 8 % 8]}\nand {WORDS[number // 64 % 8]} for the {number}th time"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An installation with a classic model that answers, and the same long input in two formats."""
    folder = tmp_path_factory.mktemp("predict-file")
    installation = Installation(folder, database=f"sqlite:///{folder}/var/kalimtak.sqlite3")
    installation.set_up()
    installation.manage("import_dataset", str(folder / "items.csv"), "--classifier", "topic")
    installation.manage("train", "topic", "--deploy")
    with (folder / "in.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["id", "text"], *([number, text_of(number)] for number in range(ROWS))])
    with (folder / "in.jsonl").open("w") as stream:
        stream.writelines(json.dumps({"id": number, "text": text_of(number)}) + "\n" for number in range(ROWS))
    yield installation
    installation.close()


def command(place, name, *more):
    folder = place.folder
    return ["predict", "topic", "--file", str(folder / f"in.{name}"), "--output", str(folder / f"out.{name}"), *more]


def rows_noted(place, name):
    note = place.folder / f"out.{name}.part.json"
    return json.loads(note.read_text())["reached"]["rows"] if note.exists() else 0


def start_and_wait(place, name, *more):
    """Start it; returns it once more rows are safe than before."""
    before = rows_noted(place, name)
    process = place.start(*command(place, name, *more), name="predict")
    wait_until(lambda: rows_noted(place, name) > before, 60, every=0.02, what="answers that are safe")
    assert process.poll() is None, "the file is too short for this test"
    return process


def ids_and_labels(path):
    with path.open(newline="") as stream:
        rows = map(json.loads, stream) if path.suffix == ".jsonl" else csv.DictReader(stream)
        return [(int(row["id"]), row["text"], row["label"], row["error"] or None) for row in rows]


def interrupt(place, name, signal_number, code):
    """While several processes answer; afterwards nothing runs, and nothing looks finished."""
    process = start_and_wait(place, name, "--processes", "2")
    os.kill(process.pid, signal_number)
    assert process.wait(30) == code
    wait_until(lambda: not place.own_processes(), 15, what="the end of every process")
    assert not (place.folder / f"out.{name}").exists()


def check_all_answered_once(target):
    answered = ids_and_labels(target)
    assert [row[:2] for row in answered] == [(number, text_of(number)) for number in range(ROWS)]
    assert {row[2] for row in answered} == {"weather", "food"} and {row[3] for row in answered} == {None}


def test_killed_three_times_a_table_is_the_same_as_in_one_go(place):
    target = place.folder / "out.csv"
    interrupt(place, "csv", signal.SIGKILL, -9)
    for death in DEATHS:
        assert "Going on after row" in place.manage(*command(place, "csv"), code=-9, KALIMTAK_CRASHPOINT=death)
    said = place.manage(*command(place, "csv", "--processes", "2"))
    assert "Going on after row" in said and f"{ROWS} rows answered by topic/1" in said
    check_all_answered_once(target)
    resumed = target.read_bytes()
    place.manage(*command(place, "csv", "--processes", "1"))
    assert target.read_bytes() == resumed


def test_stopped_by_hand_jsonl_goes_on(place):
    interrupt(place, "jsonl", signal.SIGINT, 130)
    assert "the same command goes on" in place.log("predict")
    assert "Going on after row" in place.manage(*command(place, "jsonl", "--processes", "2"))
    check_all_answered_once(place.folder / "out.jsonl")


def test_a_process_that_dies_ends_the_command_and_another_input_begins_anew(place):
    source = place.folder / "in.csv"
    (place.folder / "out.csv").unlink(missing_ok=True)
    process = start_and_wait(place, "csv", "--processes", "2")
    children = wait_until(
        lambda: [each for each in place.own_processes() if "spawn_main" in " ".join(each.cmdline())],
        30,
        every=0.02,
        what="answering processes",
    )
    children[0].kill()
    assert process.wait(60) == 1
    assert "was killed by signal 9; lower --processes" in place.log("predict")
    source.write_text("id,text\n1,rain and snow\n")
    said = place.manage(*command(place, "csv"))
    assert "another input" in said and "1 rows answered" in said
    assert ids_and_labels(place.folder / "out.csv") == [(1, "rain and snow", "weather", None)]


def test_a_gzipped_file_is_read_and_a_damaged_one_refused(place):
    source, target = place.folder / "few.csv.gz", place.folder / "few.csv"
    source.write_bytes(gzip.compress(b"id,text\n1,rain\n2,\n3,soup\n"))
    asked = ["predict", "topic", "--file", str(source), "--output", str(target)]
    assert "3 rows answered by topic/1, 1 of them refused" in place.manage(*asked)
    assert [row[2] for row in ids_and_labels(target)] == ["weather", "", "food"]
    source.write_bytes(source.read_bytes()[:-12])
    assert "damaged" in place.manage(*asked, code=1)
    assert not target.with_name("few.csv.part").exists()
