"""`manage.py make_sample_data`: what lies on disk afterwards, what it prints, and how it refuses."""

import csv
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from training.samples import CLASSIFIERS


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("make_sample_data", *arguments, stdout=out)
    return out.getvalue()


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_each_classifier_gets_three_files_with_its_own_columns(tmp_path: Path) -> None:
    run("--rows", "200", "--output", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(CLASSIFIERS)
    for slug in CLASSIFIERS:
        assert sorted(path.name for path in (tmp_path / slug).iterdir()) == ["test.csv", "train.csv", "valid.csv"]
    assert rows_of(tmp_path / "clarity" / "train.csv")[0] == ["question", "context", "clarity_label"]
    train = rows_of(tmp_path / "emotion" / "train.csv")
    assert train[0] == ["text", "label"] and len(train) == 161
    assert len(rows_of(tmp_path / "emotion" / "valid.csv")) == len(rows_of(tmp_path / "emotion" / "test.csv")) == 21


def test_full_writes_and_prints_3000_300_and_200_of_each_emotion(tmp_path: Path) -> None:
    printed = run("--full", "--classifier", "emotion", "--output", str(tmp_path))
    assert "emotion\ttrain\tvalid\ttest" in printed
    for label in CLASSIFIERS["emotion"].labels:
        assert f"{label}\t3000\t300\t200" in printed
    assert "total\t24000\t2400\t1600" in printed
    assert "sarcasm" in printed and "mixed" in printed and "emoji" in printed
    assert "Done: 1 sample set(s)" in printed
    assert len(rows_of(tmp_path / "emotion" / "train.csv")) == 24_001


def test_the_same_seed_writes_the_same_files_over_the_old_ones(tmp_path: Path) -> None:
    def content(seed: str) -> bytes:
        run("--rows", "100", "--classifier", "intent", "--seed", seed, "--output", str(tmp_path))
        return (tmp_path / "intent" / "train.csv").read_bytes()

    first, other, again = content("1"), content("2"), content("1")
    assert first == again != other


def test_without_an_output_folder_the_files_go_below_var() -> None:
    run("--rows", "100", "--classifier", "sentiment")
    assert (settings.KALIMTAK_VAR / "samples" / "sentiment" / "train.csv").is_file()


def test_too_few_rows_for_the_labels_change_nothing(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot hold all 10 labels; ask for more rows"):
        run("--rows", "20", "--classifier", "intent", "--output", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("--rows", "0"), ("--rows", "many"), ("--full", "--rows", "9"), ("--classifier", "x")]
)
def test_options_that_cannot_be_meant_are_usage_errors(arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        run(*arguments)


def test_a_folder_that_cannot_be_written_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where a folder should be")
    with pytest.raises(CommandError, match="--output") as refused:
        run("--rows", "100", "--classifier", "clarity", "--output", str(taken))
    assert "\n" not in str(refused.value)


def test_a_write_that_fails_half_way_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--rows", "100", "--classifier", "clarity", "--output", str(tmp_path))
    before = {path.name: path.read_bytes() for path in (tmp_path / "clarity").iterdir()}
    opened = Path.open

    def full_disk(path: Path, *arguments: object, **options: object) -> object:
        if path.name.startswith(".test"):
            raise OSError(28, "No space left on device")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(CommandError, match="No space left"):
        run("--rows", "200", "--classifier", "clarity", "--output", str(tmp_path))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (tmp_path / "clarity").iterdir()} == before
