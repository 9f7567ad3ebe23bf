"""The commands that load, curate, review and export."""

import csv
import io
import json

import pandas as pd
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from training.etl.duplicates import content_hash
from training.exporters import formula_safe
from training.models import TrainingDataItem
from training.services import snapshot_freeze

pytestmark = pytest.mark.django_db


def run(*words, **options):
    out = io.StringIO()
    call_command(*words, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nsunny,glad\nrain,sad\nmoon,weird\n")
    return path


def test_an_import_prints_what_the_file_is_and_what_became_of_it(mood, rows):
    printed = run("import_dataset", str(rows), "--classifier", "mood")
    assert "text-classification on text" in printed
    assert "line 4: Unknown label 'weird'." in printed
    assert "2 loaded (0 wait for review), 0 already there" in printed


def test_what_is_said_of_a_file_counts(mood, rows):
    words = ["import_dataset", str(rows), "--classifier", "mood"]
    assert "1 rows left out by their label: weird 1." in run(*words, "--unknown-labels", "drop")
    assert "1 loaded" in run(*words, "--map", "weird=calm")
    with pytest.raises(CommandError, match="have labels that the classifier does not have"):
        run(*words, "--unknown-labels", "refuse")
    with pytest.raises(CommandError, match="FOUND=LABEL"):
        run(*words, "--map", "weird")


def test_a_mere_analysis_loads_nothing(mood, rows):
    assert "3 rows, 2 good" in run("import_dataset", str(rows), "--classifier", "mood", "--analyse-only")
    assert not TrainingDataItem.objects.exists()


def test_an_import_that_fails_says_so_in_one_line(mood, rows, tmp_path):
    with pytest.raises(CommandError, match="There is no file"):
        run("import_dataset", str(tmp_path / "none.csv"), "--classifier", "mood")
    with pytest.raises(CommandError, match="no classifier 'nope'"):
        run("import_dataset", str(rows), "--classifier", "nope")
    with pytest.raises(CommandError, match="no column 'txt'"):
        run("import_dataset", str(rows), "--classifier", "mood", "--text-field", "txt")


def test_curate_prints_its_statistics(ask, judge):
    judge(ask("a sunny day"), rating=5)
    judge(ask("a rainy day"), rating=1)
    assert "approved\t1" in run("curate", "--dry-run")
    printed = run("curate", "--classifier", "mood")
    assert "extracted\t2" in printed
    assert "low rating without a correction\t1" in printed


@pytest.fixture
def waiting(mood):
    return [
        TrainingDataItem.objects.create(
            classifier=mood, fields={"text": text}, label="glad", status="review", content_hash=content_hash([text])
        )
        for text in ("one", "two", "three")
    ]


def test_review_approves_everything_up_to_the_limit(mood, waiting, rami):
    assert "2 approved by rami." in run("review", "mood", "--approve-all", "--limit", "2", "--as", "rami")
    assert "Nothing" not in run("review", "mood", "--approve-all", "--as", "rami")
    assert "Nothing waits for review." in run("review", "mood", "--as", "rami")


def test_review_refuses_a_limit_that_is_none(mood, waiting, rami):
    with pytest.raises(CommandError, match="at least 1"):
        run("review", "mood", "--approve-all", "--limit", "0", "--as", "rami")


def test_review_reads_more_items_than_a_query_takes_parameters(mood, waiting, rami, monkeypatch):
    TrainingDataItem.objects.bulk_create(
        [
            TrainingDataItem(
                classifier=mood, fields={"text": str(n)}, label="glad", status="rejected", content_hash=str(n)
            )
            for n in range(40_000)
        ],
        batch_size=2_000,
    )
    TrainingDataItem.objects.update(status="review")
    monkeypatch.setattr("builtins.input", lambda prompt: "q")
    assert "0 decided, 40003 still wait." in run("review", "mood", "--limit", "39000", "--as", "rami")


def test_review_asks_item_by_item(mood, waiting, rami, monkeypatch):
    answers = iter(["a", "what?", "calm", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    printed = run("review", "mood", "--as", "rami")
    assert "'what?' is neither a choice nor a label." in printed
    assert "2 decided, 1 still wait." in printed
    assert TrainingDataItem.objects.filter(label="calm", status="approved").exists()


def test_review_takes_the_queue_of_the_desk_skips_and_undoes(mood, waiting, rami, monkeypatch):
    from training.models import Review, ReviewSkip

    TrainingDataItem.objects.filter(pk=waiting[2].pk).update(priority=0.9, why="unsure")
    answers = iter(["r", "u", "a", "s", "u", "sad", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    printed = run("review", "mood", "--as", "rami")
    assert printed.index("text: three") < printed.index("text: one")
    assert "why here: the model was unsure" in printed
    assert printed.count("text: three") == 3
    assert ReviewSkip.objects.get().item == waiting[0]
    assert list(Review.objects.values_list("item", "label")) == [(waiting[2].pk, "sad")]
    assert "1 decided, 2 still wait." in printed


def test_review_needs_somebody_to_review(mood, waiting):
    with pytest.raises(CommandError, match="no superuser"):
        run("review", "mood", "--approve-all")
    User.objects.create_superuser("olga")
    assert "3 approved by olga." in run("review", "mood", "--approve-all")


@pytest.fixture
def risky(mood):
    for text in ("=1+1", "@cmd", "plain, with a comma", "مرحبا"):
        TrainingDataItem.objects.create(
            classifier=mood, fields={"text": text}, label="glad", status="approved", content_hash=content_hash([text])
        )
    return mood


def test_a_csv_export_is_safe_in_a_spreadsheet(risky, tmp_path):
    path = tmp_path / "out.csv"
    assert "4 rows written" in run("export_dataset", "mood", str(path))
    with path.open(encoding="utf-8", newline="") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    assert texts == ["'=1+1", "'@cmd", "plain, with a comma", "مرحبا"]


def test_jsonl_and_parquet_exports_hold_the_texts_as_they_are(risky, tmp_path):
    run("export_dataset", "mood", str(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"text": "=1+1", "label": "glad", "split": "train", "status": "approved"}
    run("export_dataset", "mood", str(tmp_path / "out.parquet"))
    assert list(pd.read_parquet(tmp_path / "out.parquet")["text"]) == [line["text"] for line in lines]


def test_an_export_comes_back_as_reviewed_as_it_was(risky, waiting, tmp_path):
    run("export_dataset", "mood", str(tmp_path / "plain.jsonl"))
    assert (tmp_path / "plain.jsonl").read_text(encoding="utf-8").count('"approved"') == 4
    assert "review" not in (tmp_path / "plain.jsonl").read_text(encoding="utf-8")
    path = tmp_path / "all.csv"
    assert "7 rows written" in run("export_dataset", "mood", str(path), "--unreviewed")
    before = set(TrainingDataItem.objects.values_list("fields__text", "label", "split", "status"))
    TrainingDataItem.objects.all().delete()
    printed = run("import_dataset", str(path), "--classifier", "mood")
    assert "'status' says what was approved" in printed
    assert "3 rows are not approved yet and wait for review." in printed
    assert "7 loaded (3 wait for review)" in printed
    assert set(TrainingDataItem.objects.values_list("fields__text", "label", "split", "status")) == before
    assert TrainingDataItem.objects.filter(status="review", decided_at=None).count() == 3


def test_a_snapshot_is_exported_by_its_digest(taught_mood, tmp_path):
    snapshot = snapshot_freeze(taught_mood, seed=1)
    assert "90 rows written" in run("export_dataset", snapshot.digest[:12], str(tmp_path / "out.csv"))


def test_an_export_that_cannot_be_written_says_why(risky, tmp_path):
    with pytest.raises(CommandError, match="must end in"):
        run("export_dataset", "mood", str(tmp_path / "out.xlsx"))
    with pytest.raises(CommandError, match="neither a classifier nor one snapshot"):
        run("export_dataset", "nope", str(tmp_path / "out.csv"))
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("cell", ["=x", "+x", "-x", "@x", "\tx", "\rx"])
def test_cells_that_would_run_get_an_apostrophe(cell):
    assert formula_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["x=1", "plain", "", 3, -3.5, None])
def test_other_cells_stay(cell):
    assert formula_safe(cell) == cell
