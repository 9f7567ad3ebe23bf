"""From a file to items in the admin: looked at, columns and labels settled, loaded, examined, given another role."""

import gzip
import io

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from kalimtak.core import jobs
from kalimtak.core.models import AuditEvent
from registry import store
from training import services
from training.models import Dataset, TrainingDataItem

pytestmark = pytest.mark.django_db


def url(name, *args):
    return reverse(f"admin:training_dataset_{name}", args=args)


@pytest.fixture
def add(world):
    def add(content, name="rows.csv", **values):
        raw = content if isinstance(content, bytes) else content.encode()
        return services.dataset_add(world.emotion, source=io.BytesIO(raw), name=name, actor="tala", **values)

    return add


BODY = "n;texte;gefühl\n1;was für ein Tag;joy\n2;<script>alert(1)</script>;froh\n3;=1+1;froh\n4;=2+2;junk\n5;oh;odd\n"


def test_a_preview_shows_rows_format_columns_and_labels(add, sign_in):
    dataset = add(BODY)
    text = sign_in("tala").get(url("load", dataset.pk)).text
    for shown in (
        "was für ein Tag",
        "UTF-8",
        "<code>;</code>",
        "gefühl",
        "froh",
        "&lt;script&gt;",
        "its texts are the longest",
    ):
        assert shown in text
    assert "<script>alert" not in text
    assert not TrainingDataItem.objects.filter(dataset=dataset).exists()


def test_labels_are_mapped_one_by_one(add, sign_in):
    dataset = add(BODY)
    client = sign_in("tala")
    chosen = {"input_0": "texte", "label_field": "gefühl", "again": "1"}
    form = client.post(url("load", dataset.pk), chosen).context["form"]
    fields = {field.label: name for name, field in form.fields.items()}
    body = {
        "then": "none",
        "input_0": "texte",
        "label_field": "gefühl",
        fields["Label “froh” means"]: "joy",
        fields["Label “junk” means"]: "\x1f",
        "unknown_labels": "report",
    }
    response = client.post(url("load", dataset.pk), body)
    assert response.url == url("change", dataset.pk)
    dataset.refresh_from_db()
    assert dataset.options["labels"] == {"froh": "joy", "junk": ""}
    assert jobs.run(dataset.job_id) == "succeeded"
    labels = TrainingDataItem.objects.filter(dataset=dataset).values_list("label", flat=True)
    assert list(labels) == ["joy", "joy", "joy"]
    page = client.get(url("change", dataset.pk)).text
    assert "Unknown label &#x27;odd&#x27;." in page
    assert "junk" in page
    bad = client.get(url("bad_rows", dataset.pk))
    assert bad.getvalue().decode().splitlines() == ["line,reason", "6,Unknown label 'odd'."]
    assert "attachment" in bad["Content-Disposition"]


def test_another_look_heeds_what_labels_mean(add, sign_in):
    dataset = add(BODY)
    client = sign_in("tala")
    body = {"input_0": "texte", "label_field": "gefühl", "again": "1", "then": "none", "unknown_labels": "report"}
    first = client.post(url("load", dataset.pk), body)
    fields = {field.label: name for name, field in first.context["form"].fields.items()}
    assert "5: Unknown label" in first.text
    body |= {fields["Label “froh” means"]: "joy", fields["Label “junk” means"]: "\x1f"}
    again = client.post(url("load", dataset.pk), body)
    preview = again.context["form"].preview
    assert (preview.labels, preview.unknown) == ({"joy": 3}, {"odd": 1})
    assert [error.line for error in preview.problems] == [6]
    assert '<option value="joy" selected>' in again.text  # what was chosen can still be seen and changed
    left_out = client.post(url("load", dataset.pk), body | {"unknown_labels": "drop"}).context["form"]
    assert (left_out.preview.unknown, left_out.preview.problems) == ({}, [])
    assert fields["Label “odd” means"] in left_out.fields


def test_personal_data_is_told_before_it_is_loaded(add, sign_in):
    dataset = add("text,label\nwrite to jo@example.org or al@example.org,joy\nrain,fear\ncall +49 30 12345678,joy\n")
    text = sign_in("tala").get(url("load", dataset.pk)).text
    assert "2 of the first 3 rows that can be loaded hold some." in text
    assert '<span class="k-tag">email 2</span>' in text
    assert '<span class="k-tag">phone 1</span>' in text


def test_another_encoding_is_tried_without_loading(add, sign_in):
    dataset = add("text,label\ncafé,joy\n".encode("cp1252"))
    client = sign_in("tala")
    page = client.get(url("load", dataset.pk)).text
    assert "is not UTF-8" in page
    assert "Load it</button>" not in page
    again = client.post(url("load", dataset.pk), {"encoding": "cp1252", "again": "1", "then": "none"})
    assert "café" in again.text
    dataset.refresh_from_db()
    assert dataset.job is None
    client.post(url("load", dataset.pk), {"encoding": "cp1252", "then": "none"})
    dataset.refresh_from_db()
    assert jobs.run(dataset.job_id) == "succeeded"
    assert TrainingDataItem.objects.get(dataset=dataset).fields == {"text": "café"}


@pytest.fixture
def upload(world, sign_in):
    def upload(content, name):
        body = {"classifier": world.emotion.pk, "role": "training", "split": "", "then": "none"}
        return sign_in("tala").post(url("upload"), body | {"file": SimpleUploadedFile(name, content)}, follow=True)

    return upload


def test_an_upload_that_is_refused_has_failed_and_can_be_discarded(
    upload, sign_in, settings, django_capture_on_commit_callbacks
):
    settings.KALIMTAK_MAX_UPLOAD = 100_000
    page = upload(gzip.compress(b"text,label\n" + b"x" * 1_000_000), "bomb.csv.gz")
    assert "once unpacked" in page.text
    dataset = Dataset.objects.get(name="bomb.csv.gz")
    assert (dataset.state, dataset.job) == ("failed", None)
    assert "over 100000 bytes" in dataset.error
    page = sign_in("tala").get(url("change", dataset.pk)).text
    assert "over 100000 bytes" in page
    assert "as soon as a worker" not in page
    file = store.dataset_path(dataset.digest)
    assert "no item is touched" in sign_in("tala").get(url("discard", dataset.pk)).text
    assert Dataset.objects.filter(pk=dataset.pk).exists()
    assert sign_in("rami").post(url("discard", dataset.pk)).status_code == 403
    with django_capture_on_commit_callbacks(execute=True):
        answer = sign_in("tala").post(url("discard", dataset.pk), follow=True)
    assert "The data set was discarded." in answer.text
    assert not Dataset.objects.filter(pk=dataset.pk).exists()
    assert not file.exists()
    assert AuditEvent.objects.get(action="dataset.discard").actor == "tala"


def test_an_upload_that_nobody_loads_says_so(add, sign_in):
    page = sign_in("tala").get(url("change", add(BODY).pk)).text
    assert "Nobody has said yet how it is to be loaded." in page
    assert "as soon as a worker" not in page


def test_columns_that_cannot_be_told_are_asked_for(add, sign_in):
    dataset = add("a,b\n1,2\n", name="rows.csv")
    page = sign_in("tala").get(url("load", dataset.pk)).text
    assert "Column of the label" in page


def test_a_file_or_an_address_but_not_both(world, sign_in, settings, jsonl):
    settings.KALIMTAK_DATASET_HOSTS = ["data.example.org"]
    client = sign_in("tala")
    body = {"classifier": world.emotion.pk, "role": "training", "split": "", "then": "none"}
    assert "one of the two" in client.post(url("upload"), body).text
    address = "https://data.example.org/rows.csv"
    assert "one of the two" in client.post(url("upload"), body | {"file": jsonl, "url": address}).text
    assert "is not among the hosts" in client.post(url("upload"), body | {"url": "https://evil.example/x.csv"}).text
    response = client.post(url("upload"), body | {"url": address})
    dataset = Dataset.objects.first()
    assert response.url == url("change", dataset.pk)
    assert (dataset.origin, dataset.job.kind) == ("url", "import")


def test_loading_can_be_cancelled_and_goes_on(add, sign_in):
    dataset = add("text,label\n" + "".join(f"text {n},joy\n" for n in range(900)))
    client = sign_in("tala")
    client.post(url("load", dataset.pk), {"then": "none"})
    assert url("cancel", dataset.pk) in client.get(url("change", dataset.pk)).text
    client.post(url("cancel", dataset.pk))
    page = client.get(url("change", dataset.pk)).text
    assert url("load", dataset.pk) in page
    assert url("cancel", dataset.pk) not in page
    client.post(url("load", dataset.pk), {"then": "none"})
    dataset.refresh_from_db()
    assert jobs.run(dataset.job_id) == "succeeded"
    assert TrainingDataItem.objects.filter(dataset=dataset).count() == 900


def test_a_role_is_changed_with_its_consequences_said(add, sign_in):
    dataset = services.dataset_load(add("text,label\none day,joy\none night,fear\n"))
    client = sign_in("tala")
    page = client.get(url("role", dataset.pk)).text
    assert "The golden set then has 2 rows" in page
    assert "mixed into each training" in page
    client.post(url("role", dataset.pk), {"role": "golden"})
    assert set(TrainingDataItem.objects.filter(dataset=dataset).values_list("split", flat=True)) == {"test"}
    assert "2 rows are held out no more" in client.get(url("role", dataset.pk)).text


def test_an_examination_leads_to_the_items_behind_its_figures(add, sign_in):
    body = "text,label\n" + "".join(f"text number {n} of joy,joy\n" for n in range(30)) + "سعيد جدا,joy\n"
    dataset = services.dataset_load(add(body))
    client = sign_in("tala")
    response = client.post(url("examine", dataset.pk))
    job = jobs.Job.objects.get(kind="examine")
    assert response.url == reverse("admin:core_job_change", args=[job.pk])
    assert jobs.run(job.pk) == "succeeded"
    page = client.get(url("change", dataset.pk)).text
    arabic = TrainingDataItem.objects.get(fields__text="سعيد جدا")
    link = f"/admin/training/trainingdataitem/?id__in={arabic.pk}"
    assert link in page
    listed = client.get(link)
    assert listed.status_code == 200
    assert [item.pk for item in listed.context["cl"].result_list] == [arabic.pk]
    label = f"/admin/training/trainingdataitem/?dataset__id__exact={dataset.pk}&label=joy"
    assert label.replace("&", "&amp;") in page
    assert len(client.get(label).context["cl"].result_list) == 31


@pytest.fixture
def found(add):
    """A data set whose findings name a doubt and a pair; their items."""
    rows = ["<b>bold</b> words " + "and more " * 30, "سعيد جدا", "a third one", "a fourth one"]
    dataset = services.dataset_load(add("text,label\n" + "".join(f"{text},joy\n" for text in rows)))
    services.dataset_examine(dataset, progress=lambda share, note: None)
    items = list(TrainingDataItem.objects.filter(dataset=dataset).order_by("pk"))
    doubt = {"item": items[0].pk, "given": "joy", "likelier": "fear", "sure": 0.9}
    dataset.findings["doubtful"] = {"judged": 4, "shown": [doubt], "count": 1, "ids": [items[0].pk]}
    pair = {"item": items[1].pk, "twin": items[2].pk, "resemblance": 0.8}
    dataset.findings["twins"]["pairs"] = [pair, {**pair, "twin": items[3].pk}]
    dataset.save()
    TrainingDataItem.objects.filter(pk=items[3].pk).delete()
    return dataset, items


def test_findings_show_the_texts_they_speak_of(found, sign_in, django_assert_num_queries):
    from training.admin.findings import findings_context

    dataset, items = found
    page = " ".join(sign_in("tala").get(url("change", dataset.pk)).text.split())
    assert "&lt;b&gt;bold&lt;/b&gt; words and more" in page
    assert "<b>bold" not in page
    assert "and more " * 20 not in page
    assert '<span class="k-clamp" dir="auto">سعيد جدا</span>' in page
    assert "The model would say" in page
    assert "<bdi>fear</bdi>" in page
    change = reverse("admin:training_trainingdataitem_change", args=[items[2].pk])
    assert f'<a class="k-link" href="{change}">#{items[2].pk}</a> <span><bdi>joy</bdi></span>' in page
    assert f'#{items[3].pk} <span class="k-muted">not there any more</span>' in page
    with django_assert_num_queries(1):
        findings_context(dataset, with_texts=True)
    dataset.findings["doubtful"]["shown"] = dataset.findings["twins"]["pairs"] = []
    with django_assert_num_queries(0):
        findings_context(dataset, with_texts=True)


def test_findings_show_no_texts_to_who_may_not_read_items(found, sign_in, people):
    from django.contrib.auth.models import Permission

    dataset, items = found
    people.nadia.user_permissions.add(Permission.objects.get(codename="view_dataset"))
    page = sign_in("nadia").get(url("change", dataset.pk)).text
    assert f"#{items[0].pk}" in page
    assert "words and more" not in page
    assert "not there any more" not in page


def test_a_log_of_interactions_has_its_own_report(world, sign_in):
    dataset = services.interactions_add(
        world.emotion,
        source=io.BytesIO(b"text,label,rating\na day,joy,up\nx,odd,1\n"),
        name="l.csv",
        actor="o",
        ring=False,
    )
    assert jobs.run(dataset.job_id) == "succeeded"
    client = sign_in("tala")
    page = client.get(url("change", dataset.pk)).text
    assert "Feedback recorded" in page
    assert "Unknown label &#x27;odd&#x27; (the answer)." in page
    assert url("role", dataset.pk) not in page
