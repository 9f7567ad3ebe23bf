"""The spool's files without a database: what was given is found again, what was torn is not, whatever is cut where."""

import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interactions import spool


class Died(BaseException):
    """The process ends here, without a handler or a buffer being flushed."""


def record(name, *, request_id=""):
    memo = (
        {"owner": "key:carla", "request_id": request_id, "body_digest": "d", "response": name} if request_id else None
    )
    rows = [{"id": name, "created_at": "2026-03-01T00:00:00+00:00", "fields": {"text": f"مرحبا\n {name}"}}]
    return {"rows": rows, "memo": memo}


def names(records):
    return [row["id"] for each in records for row in each["rows"]]


def waiting(path):
    return [names(records) for _, records in spool.groups(path) if records is not None]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def written(folder):
    """A file of a process that is gone, with two groups."""
    file = spool.SpoolFile(folder)
    file.append(spool.line_of([record("a"), record("b")]))
    file.append(spool.line_of([record("c")]))
    file.close()
    return file.path


def test_what_was_written_is_read(written):
    assert waiting(written) == [["a", "b"], ["c"]]


def test_nobody_else_may_read_it(written):
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o700


def test_a_file_cut_anywhere_holds_its_whole_groups(written):
    whole = written.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(len(whole)):
        written.write_bytes(whole[:size])
        assert waiting(written) == ([["a", "b"]] if size >= first else []), size


def test_a_byte_changed_anywhere_is_never_taken_for_an_answer(written):
    whole = written.read_bytes()
    first = whole.index(b"\n") + 1
    for place in range(len(whole)):
        written.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = list(spool.groups(written))
        expected = [None, ["c"]] if place < first else [["a", "b"]]
        if place == first - 1:  # the end of a line takes the next one with it
            expected = []
        assert [each.records and names(each.records) for each in found] == expected, place


@pytest.mark.parametrize("tail", [b"\x00" * 5000, b"\n" * 70, b"0" * 200, b"00000002 " + b"0" * 32 + b" []\n"])
def test_rubbish_at_the_end_is_no_answer(written, tail):
    with written.open("ab") as stream:
        stream.write(tail)
    assert waiting(written) == [["a", "b"], ["c"]]


def test_what_is_left_behind_is_emptied_once_and_in_order(folder, written):
    seen = []

    def write(records):
        seen.append(names(records))
        return [""] * len(records)

    assert [spool.empty(path, write) for path in spool.left_behind(folder)] == [(3, 0)]
    assert seen == [["a", "b", "c"]]
    assert list(spool.left_behind(folder)) == []
    assert spool.files(folder, spool.WAITING) == []


def test_nobody_takes_the_file_of_a_living_process(folder):
    file = spool.SpoolFile(folder)
    file.append(spool.line_of([record("a")]))
    assert list(spool.left_behind(folder)) == []
    other = "import sys; from pathlib import Path; from interactions import spool\n"
    other += "print(list(spool.left_behind(Path(sys.argv[1]))))"
    command = [sys.executable, "-c", other, str(folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
    file.close()
    assert file.path.name in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_refused_is_set_aside_with_the_reason(folder, written):
    def write(records):
        return ["no such version" if name == "b" else "" for name in names(records)]

    [path] = spool.left_behind(folder)
    assert spool.empty(path, write) == (2, 1)
    [aside] = spool.files(folder, spool.REFUSED)
    [group] = spool.groups(aside)
    assert (names(group.records), group.records[0]["refused"]) == (["b"], "no such version")
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    aside.rename(aside.with_suffix(spool.WAITING))
    assert [spool.empty(path, lambda records: [""] * len(records)) for path in spool.left_behind(folder)] == [(1, 0)]


def test_a_damaged_file_is_kept_and_the_rest_of_it_recorded(folder, written):
    whole = written.read_bytes()
    written.write_bytes(whole[:60] + b"?" + whole[61:])
    seen = []
    [path] = spool.left_behind(folder)
    spool.empty(path, lambda records: seen.extend(names(records)) or [""] * len(records))
    assert seen == ["c"]
    assert [each.suffix for each in spool.files(folder, spool.WAITING, spool.DAMAGED)] == [spool.DAMAGED]


def test_a_write_that_failed_half_way_is_taken_back(folder, monkeypatch):
    file = spool.SpoolFile(folder)
    file.append(spool.line_of([record("a")]))
    write, left = os.write, [40]

    def full(descriptor, block):
        if not left[0]:
            raise OSError(28, "No space left on device")
        count = write(descriptor, block[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        file.append(spool.line_of([record("b")]))
    assert file.has_failed
    assert file.path.stat().st_size > file.size
    file.mend()
    assert file.path.stat().st_size == file.size
    assert waiting(file.path) == [["a"]]


def test_the_spool_is_bounded_and_leaves_the_disk_its_reserve(folder, written):
    size = spool.bytes_in(folder)
    spool.room_check(folder, 10, most=size + 10, reserve=0)
    with pytest.raises(spool.SpoolFull, match="KALIMTAK_SPOOL_BYTES"):
        spool.room_check(folder, 11, most=size + 10, reserve=0)
    with pytest.raises(spool.SpoolFull, match="KALIMTAK_DISK_RESERVE"):
        spool.room_check(folder, 1, most=2**60, reserve=2**60)


def test_the_index_follows_what_others_write_and_empty(folder):
    index, file = spool.Index(folder), spool.SpoolFile(folder)
    assert (index.count(), index.holds("a")) == ((0, ""), False)
    file.append(spool.line_of([record("a", request_id="r1")]))
    assert index.holds("a")
    assert index.memo("key:carla", "r1")["response"] == "a"
    assert index.memo("key:nora", "r1") is None
    file.append(spool.line_of([record("b")]))
    with file.path.open("ab") as stream:
        stream.write(spool.line_of([record("torn")])[:-5])
    assert index.count() == (2, "2026-03-01T00:00:00+00:00")
    file.close()
    [path] = spool.left_behind(folder)
    spool.empty(path, lambda records: [""] * len(records))
    assert (index.count(), index.holds("a"), index.memo("key:carla", "r1")) == ((0, ""), False, None)


def test_the_turn_lets_readers_in_together_and_a_writer_alone(folder, monkeypatch):
    monkeypatch.setattr(spool, "LOCK_SECONDS", 0.05)
    with (
        spool.turn(folder, shared=True),
        spool.turn(folder, shared=True),
        pytest.raises(spool.SpoolBusy),
        spool.turn(folder, shared=False),
    ):
        pass
    with spool.turn(folder, shared=False), pytest.raises(spool.SpoolBusy), spool.turn(folder, shared=True):
        pass


# Deaths ------------------------------------------------------------------------------------------------------------

POINTS = ["spool.before_write", "spool.before_fsync", "spool.after_fsync", "spool.in_replay", "spool.before_removal"]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),  # answers of a group; none: empty what lies there instead
        st.sampled_from(["", "", *POINTS]),  # where the process dies
        st.integers(1, 3),  # at which pass
        st.floats(0, 1),  # how much of what was not fsynced is on the disk after a power cut
    ),
    max_size=12,
)


class Machine:
    """Processes that write and empty one after the other, and a table that knows rows by their ids."""

    def __init__(self, folder):
        self.folder, self.file = folder, None
        self.table, self.given, self.tried = [], [], []

    def step(self, count, number):
        if not count:
            for path in spool.left_behind(self.folder):
                spool.empty(path, self.write)
            return
        ids = [f"{number}.{each}" for each in range(count)]
        self.tried += ids
        self.file = self.file or spool.SpoolFile(self.folder)
        self.file.append(spool.line_of([record(each) for each in ids]))
        self.given += ids

    def write(self, records):
        self.table += [name for name in names(records) if name not in self.table]
        return [""] * len(records)

    def die(self, share):
        """Of a group that was not fsynced any part may be on the disk."""
        if self.file is not None:
            size = self.file.path.stat().st_size
            os.truncate(self.file.path, self.file.size + int((size - self.file.size) * share))
            self.file.close()
            self.file = None


@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_what_was_given_is_recorded_once_whatever_dies_when(steps, tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("spool"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "BATCH_ROWS", 3)
        for number, (count, point, at, share) in enumerate(steps):
            passes = iter(range(1, 1000))

            def crashpoint(name, point=point, at=at, passes=passes):
                if name == point and next(passes) == at:
                    raise Died

            patch.setattr(spool, "crashpoint", crashpoint)
            try:
                machine.step(count, number)
            except Died:
                machine.die(share)
        patch.setattr(spool, "crashpoint", lambda name: None)
        machine.die(1.0)
        machine.step(0, len(steps))
    assert len(set(machine.table)) == len(machine.table)
    assert set(machine.given) <= set(machine.table) <= set(machine.tried)
    assert spool.files(machine.folder, spool.WAITING, spool.DAMAGED) == []
