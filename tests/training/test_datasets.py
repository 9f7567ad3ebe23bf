"""Files become approved items, once, with every exception explained."""

import gzip
import io
import os
from pathlib import Path

import pytest

from kalimtak.core import jobs
from kalimtak.core.errors import Conflict, InvalidInput, NotAllowed
from registry.models import Classifier
from training import services
from training.models import Dataset, Review, TrainingDataItem

NOTHING = dict.fromkeys(("loaded", "duplicates", "for_review", "refused_before", "held_out"), 0)
pytestmark = pytest.mark.django_db


@pytest.fixture
def load(mood):
    def load(content, name="rows.csv", classifier=None, **values):
        raw = content if isinstance(content, bytes) else content.encode()
        dataset = services.dataset_add(classifier or mood, source=io.BytesIO(raw), name=name, actor="olga", **values)
        return services.dataset_load(dataset)

    return load


def items(**values):
    return TrainingDataItem.objects.filter(**values)


def test_labelled_rows_are_approved_items(load):
    dataset = load("text,label\nsunny,glad\nrain,sad\n")
    assert (dataset.state, dataset.rows) == ("ready", 2)
    item = items(label="glad").get()
    assert (item.status, item.split, item.fields) == ("approved", "train", {"text": "sunny"})
    assert item.reason == "Loaded from rows.csv."
    assert item.decided_at


def test_loading_again_changes_nothing(load):
    content = gzip.compress(b"text,label\nsunny,glad\nrain,sad\nSUNNY ,glad\n")
    first = load(content, "rows.csv.gz")
    assert first.report["outcome"] == {
        "loaded": 2,
        "duplicates": 1,
        "for_review": 0,
        "refused_before": 0,
        "pii_redacted": 0,
        "held_out": 0,
    }
    before = list(items().values())
    assert services.dataset_load(first).report["outcome"]["loaded"] == 0
    assert load(content, "rows.csv.gz").report["outcome"]["duplicates"] == 3
    assert list(items().values()) == before


def test_a_text_with_another_label_waits_for_review(load):
    load("text,label\nsunny,glad\nsunny,sad\n")
    item = items(label="sad").get()
    assert (item.status, item.reason) == ("review", "The same text is already labelled 'glad'.")


def test_a_pair_that_a_reviewer_refused_does_not_come_back(load, rami):
    load("text,label\nsunny,sad\n")
    services.item_review(items().get(), reviewer=rami, verdict=Review.Verdict.REJECT)
    assert load("text,label\nsunny,sad\nrain,sad\n").report["outcome"]["refused_before"] == 1
    assert items(status="approved").get().fields == {"text": "rain"}


def test_bad_rows_are_reported_and_good_ones_loaded(load):
    dataset = load("text,label\nsunny,glad\nmoon,weird\n,sad\nrain,sad\n")
    assert dataset.rows == 2
    assert dataset.report["errors"] == [
        {"line": 3, "reason": "Unknown label 'weird'."},
        {"line": 4, "reason": "An empty text."},
    ]


def test_the_golden_role_and_the_split_decide_where_rows_go(load):
    load("text,label\na,glad\n", role="golden")
    load("text,label\nb,glad\n", split="valid")
    load("text,label,split\nc,glad,dev\nd,sad,test\ne,sad,train\n")
    splits = dict(items().values_list("fields__text", "split"))
    assert splits == {"a": "test", "b": "valid", "c": "valid", "d": "test", "e": "train"}


def test_a_classifier_without_labels_takes_them_from_the_data(load, mood):
    bare = Classifier.objects.create(slug="bare", family="classic", input_fields=["text"])
    load("text,label\na,zebra\nb,ant\nc,zebra\n", classifier=bare)
    bare.refresh_from_db()
    assert bare.labels == ["zebra", "ant"]


def test_labels_are_mapped(load, mood):
    mood.label_config = {"labels": mood.labels, "mapping": {"0": "glad", "1": "sad"}}
    mood.save()
    load('[{"text": "a", "label": 0}, {"text": "b", "label": 1}]', "rows.json")
    assert set(items().values_list("label", flat=True)) == {"glad", "sad"}


def test_a_question_needs_its_context(load):
    clarity = Classifier.objects.create(
        slug="clarity", family="classic", input_fields=["question", "context"], label_field="clarity_label"
    )
    load(
        '[{"question": "q", "context": "c", "clarity_label": "Clear"}, {"question": "q", "clarity_label": "Vague"},'
        ' {"question": "p", "context": "c", "clarity_label": "Vague"}]',
        "rows.json",
        classifier=clarity,
    )
    assert items(label="Clear").get().fields == {"question": "q", "context": "c"}
    assert items().count() == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("text,label\n", "no rows"),
        ("text\nsunny\n", "no label column"),
        ("text,label\na,x\nb,y\n", "None of the labels"),
        ("text,label\n,glad\n", "no row that can be loaded"),
    ],
)
def test_a_file_nothing_can_be_learnt_from_is_refused_and_changes_nothing(load, content, says):
    with pytest.raises(InvalidInput, match=says) as refusal:
        load(content)
    assert refusal.value.code == "dataset_refused"
    assert Dataset.objects.get().state == "failed"
    assert not items().exists()


def test_one_class_is_no_label_set(load):
    bare = Classifier.objects.create(slug="bare", family="classic", input_fields=["text"])
    with pytest.raises(InvalidInput, match="at least two"):
        load("text,label\na,x\nb,x\n", classifier=bare)
    bare.refresh_from_db()
    assert bare.labels == []


def test_an_interrupted_load_goes_on_where_it_stopped(mood, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {number},glad\n" for number in range(1_200)))
    dataset = services.dataset_add(mood, source=path, name=path.name, actor="olga")

    def cancel(fraction, note):
        if "loaded 1,000" in note:
            raise jobs.JobCancelled

    with pytest.raises(jobs.JobCancelled):
        services.dataset_load(dataset, progress=cancel)
    dataset.refresh_from_db()
    assert (dataset.state, items().count()) == ("failed", 1_000)
    loaded = services.dataset_load(dataset)
    assert loaded.rows == 1_200
    assert loaded.report["outcome"] == {
        "loaded": 1_200,
        "duplicates": 0,
        "for_review": 0,
        "refused_before": 0,
        "pii_redacted": 0,
        "held_out": 0,
    }


def test_the_job_loads_and_trains_afterwards(mood):
    body = "text,label\n" + "".join(f"text {n},{'glad' if n % 2 else 'sad'}\n" for n in range(60))
    dataset = services.dataset_add(mood, source=io.BytesIO(body.encode()), name="rows.csv", actor="olga")
    job = services.dataset_import_queue(dataset, actor="olga", then="train")
    assert services.dataset_import_queue(dataset, actor="olga") == job
    assert jobs.run(job.pk) == "succeeded"
    job.refresh_from_db()
    assert job.result["loaded"] == 60
    assert mood.runs.get().job_id == jobs.Job.objects.get(kind="train").pk


def test_a_name_cannot_lead_out_of_the_store(mood, store):
    dataset = services.dataset_add(mood, source=io.BytesIO(b"x"), name="../../etc/passwd.csv", actor="olga")
    assert dataset.name == "passwd.csv"
    assert {path.parent for path in Path(store).rglob("*") if path.is_file()} == {store / "_datasets"}


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("https://other.example/x.csv", NotAllowed),
        ("http://data.example/x.csv", InvalidInput),
        ("https://data.example:8443/x.csv", InvalidInput),
        ("https://u:p@data.example/x.csv", InvalidInput),
        ("https://data.example@other.example/x.csv", InvalidInput),
        ("file:///etc/passwd", InvalidInput),
        ("https://[::1", InvalidInput),
    ],
)
def test_only_plain_https_to_an_allowed_host_is_fetched(mood, settings, url, error):
    settings.KALIMTAK_DATASET_HOSTS = ["data.example"]
    with pytest.raises(error):
        services.dataset_add_url(mood, url=url, actor="olga")
    assert not Dataset.objects.exists()


def test_a_host_with_a_private_address_is_refused_when_it_is_fetched(mood, settings):
    settings.KALIMTAK_DATASET_HOSTS = ["localhost"]
    dataset = services.dataset_add_url(mood, url="https://localhost/x.csv", actor="olga")
    with pytest.raises(InvalidInput, match="no public address"):
        services.dataset_load(dataset)
    dataset.refresh_from_db()
    assert dataset.state == "failed"


def test_an_import_whose_process_must_end_goes_on_in_the_next(mood):
    rows = "".join(f"text number {number},glad\n" for number in range(20))
    content = io.BytesIO(f"text,label\n{rows}".encode())
    dataset = services.dataset_add(mood, source=content, name="rows.csv", actor="olga")
    job = services.dataset_import_queue(dataset, actor="olga")
    assert jobs.run(job.pk, on_claim=lambda context: context.stop_asked.set()) == "queued"
    job.refresh_from_db()
    assert job.attempt == 0
    assert jobs.run(job.pk) == "succeeded"
    assert items().count() == 20


# What a person says of a file ------------------------------------------------------------------------------------


def test_labels_the_classifier_lacks_are_mapped_left_out_or_refused(load):
    body = "text,label\na,glad\nb,happy\nc,junk\nd,odd\n"
    mapped = load(body, options={"labels": {"happy": "glad", "junk": ""}})
    assert dict(items().values_list("fields__text", "label")) == {"a": "glad", "b": "glad"}
    assert mapped.report["dropped"] == {"junk": 1}
    assert mapped.report["errors"] == [{"line": 5, "reason": "Unknown label 'odd'."}]
    dropped = load("text,label\ne,glad\nf,odd\n", options={"unknown_labels": "drop"})
    assert (dropped.report["dropped_count"], dropped.report["error_count"]) == (1, 0)
    with pytest.raises(InvalidInput, match="1 rows of rows"):
        load("text,label\ng,glad\nh,odd\n", options={"unknown_labels": "refuse"})
    assert not items(fields__text="g").exists()


def test_the_split_column_can_be_named(load):
    load("text,label,part\nc,glad,dev\n", options={"split_field": "part"})
    assert items().get().split == "valid"


def test_only_what_a_file_calls_approved_is_approved(load):
    body = "text,label,status\na,glad,approved\nb,glad,review\nc,sad,rejected\n"
    dataset = load(body + "d,sad,Quarantined\ne,sad,candidate\nf,sad,\n")
    assert dict(items().values_list("fields__text", "status")) == {"a": "approved", "b": "review", "f": "review"}
    assert "Not approved yet" in items(fields__text="b").get().reason
    assert dataset.report["skipped"] == {"rejected": 1, "quarantined": 1, "candidate": 1}
    assert (dataset.report["unreviewed"], dataset.report["outcome"]["for_review"]) == (2, 2)
    assert dataset.report["rows"] == 6


def test_a_status_of_another_kind_says_nothing(load):
    dataset = load("text,label,status\na,glad,open\nb,glad,rejected\n")
    assert set(items().values_list("status", flat=True)) == {"approved"}
    assert dataset.report["fields"]["status"] is None


def test_every_bad_row_is_in_a_file_of_the_store(load):
    from registry import store

    bad = "".join(f"text {number},=odd\n" for number in range(150))
    dataset = load(f"text,label\nsunny,glad\n{bad}")
    assert len(dataset.report["errors"]) == 100
    lines = store.dataset_path(dataset.report["errors_file"]).read_text().splitlines()
    assert lines[:2] == ["line,reason", "3,Unknown label '=odd'."]
    assert len(lines) == 151


def test_personal_data_is_counted_and_replaced_where_one_asks_for_it(load):
    body = "text,label\nwrite to anna@example.org,glad\nrain,sad\n"
    found = load(body).report["personal"]
    assert (found["looked_at"], found["rows"], found["kinds"]) == (2, 1, {"EMAIL": 1})
    dataset = load(body.replace("write", "post"), options={"redact": True})
    assert dataset.report["outcome"]["pii_redacted"] == 1
    assert "anna" not in items(dataset=dataset).get().fields["text"]


def test_an_option_that_is_none_is_refused(load):
    with pytest.raises(InvalidInput, match="encoding"):
        load("text,label\na,glad\n", options={"encoding": "utf-7"})
    with pytest.raises(InvalidInput, match="unknown_labels"):
        load("text,label\na,glad\n", options={"unknown_labels": "guess"})


def test_a_load_that_goes_on_passes_over_the_chunks_it_has(mood, tmp_path, django_assert_max_num_queries):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {number},glad\n" for number in range(5_000)))
    dataset = services.dataset_add(mood, source=path, name=path.name, actor="olga")

    def cancel(fraction, note):
        if "loaded 4,500" in note:
            raise jobs.JobCancelled

    with pytest.raises(jobs.JobCancelled):
        services.dataset_load(dataset, progress=cancel)
    dataset.refresh_from_db()
    assert dataset.checkpoint["chunks"] == 9
    with django_assert_max_num_queries(30):
        services.dataset_load(dataset)
    assert (dataset.rows, dataset.checkpoint) == (5_000, {})


def test_other_options_begin_anew(mood, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {number},glad\n" for number in range(700)))
    dataset = services.dataset_add(mood, source=path, name=path.name, actor="olga")

    def cancel(fraction, note):
        if "loaded 500" in note:
            raise jobs.JobCancelled

    with pytest.raises(jobs.JobCancelled):
        services.dataset_load(dataset, progress=cancel)
    dataset.options = {**dataset.options, "unknown_labels": "drop"}
    loaded = services.dataset_load(dataset)
    assert loaded.report["outcome"]["duplicates"] == 500
    assert loaded.rows == 700


# Removing it -----------------------------------------------------------------------------------------------------


def test_what_was_loaded_or_is_being_loaded_is_not_discarded(load, mood):
    with pytest.raises(Conflict, match="was loaded"):
        services.dataset_discard(load("text,label\na,glad\n"), actor="olga")
    queued = services.dataset_add(mood, source=io.BytesIO(b"x"), name="a.csv", actor="olga", then="none", ring=False)
    with pytest.raises(Conflict, match="being loaded"):
        services.dataset_discard(queued, actor="olga")
    partly = services.dataset_add(mood, source=io.BytesIO(b"x"), name="a.csv", actor="olga")
    items().update(dataset=partly)
    with pytest.raises(Conflict, match="was loaded"):
        services.dataset_discard(partly, actor="olga")


def test_a_file_that_another_data_set_names_stays(mood, django_capture_on_commit_callbacks):
    from registry import store

    one, other, third = (
        services.dataset_add(mood, source=io.BytesIO(b"x"), name="a.csv", actor="olga") for _ in range(3)
    )
    with django_capture_on_commit_callbacks(execute=True):
        services.dataset_discard(one, actor="olga")
    path = store.dataset_path(other.digest)
    Dataset.objects.filter(pk=third.pk).delete()
    uploaded_again = other.created_at.timestamp() + 1
    os.utime(path, (uploaded_again, uploaded_again))  # by somebody whose row is not written yet
    with django_capture_on_commit_callbacks(execute=True):
        services.dataset_discard(other, actor="olga")
    assert path.exists()


# Roles -----------------------------------------------------------------------------------------------------------


def test_a_golden_data_set_holds_its_rows_out_until_it_is_golden_no_more(load, mood):
    load("text,label\nz,glad\n", role="golden")
    dataset = load("text,label\na,glad\nb,sad\n")
    assert services.dataset_role_preview(dataset, "golden") == (2, 3, 0)
    services.dataset_role_set(dataset, "golden", actor="olga")
    assert set(items(dataset=dataset).values_list("split", flat=True)) == {"test"}
    assert services.dataset_role_preview(dataset, "rehearsal") == (2, 1, 0)
    services.dataset_role_set(dataset, "rehearsal", actor="olga")
    dataset.refresh_from_db()
    assert dataset.role == "rehearsal"
    assert set(items(dataset=dataset).values_list("split", flat=True)) == {"train"}


def test_a_role_that_holds_out_what_versions_learnt_says_how_many(trained_mood, taught_mood):
    dataset = Dataset.objects.create(classifier=taught_mood, name="x.csv", origin="upload", state="ready")
    items(classifier=taught_mood).update(dataset=dataset)
    assert services.dataset_role_preview(dataset, "golden").learnt == 1


def test_a_data_set_that_is_being_loaded_keeps_its_role(mood):
    dataset = services.dataset_add(mood, source=io.BytesIO(b"x"), name="a.csv", actor="olga", then="none", ring=False)
    with pytest.raises(Conflict, match="being loaded"):
        services.dataset_role_set(dataset, "golden", actor="olga")


def test_a_preview_says_how_the_file_would_be_read(mood):
    raw = "texte;label;x\ncafé;glad;1\nmoon;weird;2\n".encode("utf-16")
    dataset = services.dataset_add(mood, source=io.BytesIO(raw), name="rows.csv", actor="olga")
    preview = services.dataset_preview(dataset)
    source = preview.source
    assert (source.kind, source.encoding, source.delimiter) == ("csv", "utf-16", ";")
    assert preview.rows == [["2", "café", "glad", "1"], ["3", "moon", "weird", "2"]]
    assert preview.columns.inputs == ("texte",)
    assert (preview.labels, preview.unknown) == ({"glad": 1}, {"weird": 1})
    wrong = services.dataset_preview(dataset, {"label_field": "nope"})
    assert wrong.columns is None
    assert "no column 'nope'" in wrong.refusal
