"""What always holds between data sets and their files, items, snapshots, runs and the versions they made."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import Count, Exists, F, OuterRef
from django.utils import timezone

from kalimtak.core.errors import NotFound
from kalimtak.core.findings import Check, Finding, Look, batches, error, outside, warning
from kalimtak.core.models import Job
from registry import store
from registry.manifest import hash_file
from registry.models import Classifier
from training.etl.duplicates import content_hash, skeletons
from training.etl.load import LIVE
from training.etl.near_duplicates import MOST_PER_KEY
from training.etl.sketches import keys_of
from training.models import Dataset, DatasetSnapshot, DuplicateBand, Review, SnapshotItem, TrainingDataItem, TrainingRun
from training.run_process import trainer_lives
from training.run_spec import SPLITS
from training.services.snapshots import data_digest, rows_digest
from training.services.work import KEPT_AFTER_FAILURE, work_folders

UPLOADING = timedelta(hours=1)  # the file is there before its row
LOADING = timedelta(hours=6)  # in the terminal, without a job

Status = TrainingDataItem.Status
_BY_HAND = "No verb writes this: somebody changed the row by hand, or it is a bug."


# Data sets and their files ---------------------------------------------------------------------------------------


def datasets_have_their_files(look: Look) -> Iterator[Finding]:
    """The file a data set names lies in the store and is still what was uploaded."""
    remedy = "Restore `_datasets/` from a backup, or upload the file again; its items are not affected."
    checked: set[str] = set()
    for dataset in look.rows(Dataset.objects.all(), batch=20):
        if not dataset.digest:
            if dataset.state == Dataset.State.READY:
                yield error(f"data set {dataset.pk}", "loaded without a file", _BY_HAND)
            continue
        try:
            path = store.dataset_path(dataset.digest)
        except NotFound:
            yield error(f"data set {dataset.pk}", f"its file {dataset.digest} is not in the store", remedy)
            continue
        if not look.quick and dataset.digest not in checked:
            checked.add(dataset.digest)
            if hash_file(path) != dataset.digest:
                yield error(f"data set {dataset.pk}", f"its file {dataset.digest} was altered", remedy)


def files_have_their_datasets(look: Look) -> Iterator[Finding]:
    """No upload lies in the store that no data set names."""
    known = set(Dataset.objects.exclude(digest="").values_list("digest", flat=True))
    known |= set(Dataset.objects.values_list("report__errors_file", flat=True))
    for path in store.dataset_files():
        try:
            age = timezone.now().timestamp() - path.lstat().st_mtime
        except FileNotFoundError:
            continue
        if path.name not in known and age > UPLOADING.total_seconds():
            what = "an upload that no data set names, as a crash while uploading leaves it"
            yield warning(f"store _datasets/{path.name}", what, f"Remove {path}.")


def datasets_are_on_their_way(look: Look) -> Iterator[Finding]:
    """What is being loaded has somebody who loads it."""
    late = Dataset.objects.filter(state=Dataset.State.LOADING).select_related("job")
    for dataset in look.rows(late):
        in_terminal = dataset.job is None and dataset.created_at > timezone.now() - LOADING
        if not in_terminal and (dataset.job is None or dataset.job.is_finished):
            why = f"its job is {dataset.job.state}" if dataset.job else "no job does it"
            yield warning(f"data set {dataset.pk}", f"it is loading, but {why}", "Load it again: nothing comes twice.")
    items = Dataset.objects.exclude(origin=Dataset.Origin.FEEDBACK)  # whose rows are interactions
    counted = items.filter(state=Dataset.State.READY).annotate(held=Count("items"))
    for dataset in look.rows(counted, batch=50):
        if dataset.held < dataset.rows:
            what = f"{dataset.rows} items were loaded, {dataset.held} are there"
            yield error(f"data set {dataset.pk}", what, "Load it again: what is there does not come twice.")
    for column, value, rows in outside(Dataset, "origin", "role", "state"):
        yield error("data sets", f"{rows} with the unknown {column} {value!r}", _BY_HAND)


# Items -----------------------------------------------------------------------------------------------------------


def items_have_known_labels(look: Look) -> Iterator[Finding]:
    """Approved items carry labels of their classifier: what else could a model learn from them?"""
    classifiers = Classifier.objects.in_bulk()
    approved = TrainingDataItem.objects.approved().order_by()
    for pk, text, count in approved.values_list("classifier_id", "label").annotate(count=Count("pk")):
        classifier = classifiers[pk]
        for label in classifier.unknown_labels(text):
            what = f"{count} approved items are labelled {label[:60]!r}, which is none of its labels"
            yield error(f"classifier {classifier}", what, f"Relabel or reject them: `manage.py review {classifier}`.")
        if classifier.multi_label and text != classifier.label_of(classifier.label_parts(text)):
            what = f"{count} approved items write their labels as {text[:60]!r}, out of order"
            yield error(f"classifier {classifier}", what, _BY_HAND)
    for model, columns in ((TrainingDataItem, ["status", "split", "origin"]), (Review, ["verdict"])):
        for column, value, rows in outside(model, *columns):
            yield error(model._meta.verbose_name_plural, f"{rows} with the unknown {column} {value!r}", _BY_HAND)


def items_are_well_formed(look: Look) -> Iterator[Finding]:
    """One text per input field, a content hash that is that of the texts, a weight that can be learnt with."""
    inputs = dict(Classifier.objects.values_list("pk", "input_fields"))
    columns = ("pk", "classifier_id", "fields", "content_hash", "weight", "quality")
    for item in look.rows(TrainingDataItem.objects.values_list(*columns, named=True)):
        for what in _malformations(item, inputs[item.classifier_id], look):
            yield error(f"item {item.pk}", what, "Reject it in the admin and load or give the example again.")


def _malformations(item: Any, names: list[str], look: Look) -> Iterator[str]:
    fields = item.fields if isinstance(item.fields, dict) else {}
    texts = [fields[name] for name in names if isinstance(fields.get(name), str)]
    if set(fields) != set(names) or len(texts) != len(names):
        yield f"its input is not one text for each of {', '.join(names)}"
    elif not look.quick and content_hash(texts) != item.content_hash:
        yield "its content hash is not that of its texts, so that duplicates go unnoticed"
    if not 0 < item.weight < 1e6 or not 0 <= item.quality <= 1:
        yield f"its weight is {item.weight}, its quality {item.quality}"


def items_keep_to_their_classifier(look: Look) -> Iterator[Finding]:
    """Data set and source interaction are of the classifier that learns."""
    for relation, name in (("dataset", "data set"), ("interaction", "source interaction")):
        strange = TrainingDataItem.objects.exclude(**{relation: None})
        for item in strange.exclude(**{f"{relation}__classifier": F("classifier")})[:100]:
            yield error(f"item {item.pk}", f"its {name} is another classifier's", _BY_HAND)


def texts_are_approved_once(look: Look) -> Iterator[Finding]:
    """A text has one approved label, and no two live items say the same of it."""
    live = TrainingDataItem.objects.filter(status__in=LIVE).order_by()
    same = live.values_list("classifier__slug", "content_hash", "label").annotate(count=Count("pk"))
    for slug, digest, label, count in same.filter(count__gt=1)[:100]:
        what = f"{count} items hold the same text {digest[:12]} with the label {label[:60]!r}"
        yield error(f"classifier {slug}", what, "Reject all but one in the admin.")
    approved = live.filter(status=Status.APPROVED).values_list("classifier__slug", "content_hash")
    for slug, digest, count in approved.annotate(count=Count("label", distinct=True)).filter(count__gt=1)[:100]:
        what = f"the text {digest[:12]} is approved with {count} labels"
        yield warning(f"classifier {slug}", what, "Relabel or reject one of the items in the admin.")


def bands_are_those_of_their_items(look: Look) -> Iterator[Finding]:
    """What is compared has a cluster and is found by its own keys, what is not compared has none."""
    remedy = "Reject it, run `manage.py curate`, and approve it again: then it is compared anew."
    has_bands = Exists(DuplicateBand.objects.filter(item=OuterRef("pk")))
    for item in look.rows(TrainingDataItem.objects.filter(has_bands, compared=False).only("pk")):
        yield error(f"item {item.pk}", "it was not compared, and has near-duplicate bands", _BY_HAND)
    compared = TrainingDataItem.objects.filter(compared=True).select_related("classifier").prefetch_related("bands")
    for item in look.rows(compared.only("fields", "cluster", "classifier__input_fields")):
        held = {band.key for band in item.bands.all()}
        if item.cluster is None:
            yield error(f"item {item.pk}", "it was compared, and has no near-duplicate cluster", remedy)
        if look.quick:
            continue
        texts = skeletons([str(item.fields.get(name, "")) for name in item.classifier.input_fields])
        own = set(keys_of([texts], salt=item.classifier_id)[0])
        if held - own:
            yield error(f"item {item.pk}", "it is found by the near-duplicate bands of another text", remedy)
        elif not held and any(DuplicateBand.objects.filter(key=key).count() < MOST_PER_KEY for key in own):
            yield error(f"item {item.pk}", "it was compared, and its near-duplicates are not found", remedy)


# Snapshots and runs ----------------------------------------------------------------------------------------------


def snapshots_are_as_frozen(look: Look) -> Iterator[Finding]:
    """Digests and counts of a snapshot are those of its rows. With an item gone the digest cannot be had again."""
    columns = ("pk", "item_id", "content_hash", "label", "split", "weight")
    for snapshot in look.rows(DatasetSnapshot.objects.select_related("classifier"), batch=20):
        rows = [
            tuple(row)[1:]
            for some in batches(SnapshotItem.objects.filter(snapshot=snapshot).values_list(*columns, named=True))
            for row in some
        ]
        for what in _thaws(snapshot, rows):
            yield error(f"snapshot {snapshot.pk} ({snapshot.classifier})", what, _BY_HAND)


def _thaws(snapshot: DatasetSnapshot, rows: list[Any]) -> Iterator[str]:
    counted = Counter((split, label) for _, _, label, split, _ in rows)
    stated = {
        (split, label): count
        for split in TrainingDataItem.Split.values
        for label, count in snapshot.counts.get(split, {}).items()
    }
    learnt = {digest for _, digest, _, split, _ in rows if split != TrainingDataItem.Split.TEST}
    if held := learnt & {digest for _, digest, _, split, _ in rows if split == TrainingDataItem.Split.TEST}:
        yield f"{len(held)} texts are both learnt from and measured on"
    if dict(counted) != stated:
        yield f"it holds {len(rows)} rows and states {sum(stated.values())}"
    golden = data_digest((digest, label) for _, digest, label, split, _ in rows if split == TrainingDataItem.Split.TEST)
    if golden != snapshot.golden_digest:
        yield "its golden rows are not those of its golden digest"
    is_complete = all(item_id is not None for item_id, *_ in rows)
    if is_complete and rows_digest(sorted(rows)) != snapshot.digest:
        yield "its rows are not those of its digest"


def runs_made_what_they_say(look: Look) -> Iterator[Finding]:
    """A run that succeeded made one version, from its snapshot, scored on its golden set; its job names it."""
    runs = TrainingRun.objects.select_related("job", "snapshot", "version__classifier").order_by()
    for run in look.rows(runs, batch=100):
        for what in _broken_promises(run):
            yield error(f"run {run.pk}", what, _BY_HAND)
    made = TrainingRun.objects.exclude(version=None).order_by().values_list("version_id")
    for version, count in made.annotate(count=Count("pk")).filter(count__gt=1):
        yield error(f"version {version}", f"{count} runs say they made it", _BY_HAND)
    runless = Job.objects.filter(kind="train", state=Job.State.SUCCEEDED, run=None)
    for job in runless:
        yield error(f"job {job.pk}", "a training succeeded without a run", _BY_HAND)


def _broken_promises(run: TrainingRun) -> Iterator[str]:
    job, version = run.job, run.version
    if job.kind != "train":
        yield f"its job is one of kind {job.kind}"
    if run.snapshot.classifier_id != run.classifier_id:
        yield "its snapshot is another classifier's"
    steps = [point.get("step", 0) for point in run.history]
    if steps != sorted(steps):
        yield "its metric history goes back and forth"
    if version is None:
        if job.state == Job.State.SUCCEEDED:
            yield "its job succeeded and it has no version"
        return
    if version.classifier_id != run.classifier_id:
        yield f"it made {version.ref}, a version of another classifier"
    if version.snapshot_digest != run.snapshot.digest:
        yield f"{version.ref} names another snapshot than the run"
    golden = run.snapshot.golden_digest
    if golden and not version.evaluations.filter(data_digest=golden).exists():
        yield f"{version.ref} was not scored on the golden set of the run"
    if job.state == Job.State.QUEUED and not job.token:
        yield "its job never ran and it has a version"
    named = (job.result or {}).get("version")
    if job.state == Job.State.SUCCEEDED and named != version.ref:
        yield f"its job names {named} and it made {version.ref}"


def work_folders_are_in_use(look: Look) -> Iterator[Finding]:
    """On this host: no trainer without a running job, no texts and no folders of runs that are over."""
    folders = {job_id: folder for job_id, folder in work_folders() if folder.is_dir()}
    jobs = Job.objects.in_bulk(list(folders))
    for pk, folder in folders.items():
        job = jobs.get(pk)
        state = job.state if job else "unknown"
        where = f"{folder.parent.name}/{folder.name}"
        is_running = state == Job.State.RUNNING
        if not is_running and trainer_lives(folder / "trainer.json"):
            yield error(where, f"a trainer runs and its job is {state}", f"End the process named in {folder}.")
        if job is not None and not job.is_finished:
            continue
        if any(any(folder.glob(f"attempt-*/{split}.jsonl")) for split in SPLITS):
            what = f"texts of a run whose job is {state}, left behind by a crash"
            yield warning(
                where, what, f"Remove {folder}/attempt-*; a week after its end a run's folder goes by itself."
            )
        ended = job.finished_at if job else None
        if (
            job is None
            or job.state == Job.State.SUCCEEDED
            or (ended and ended < timezone.now() - 2 * KEPT_AFTER_FAILURE)
        ):
            yield warning(
                where, f"the folder of a run whose job is {state}", f"Remove {folder}; the next run does too."
            )


CHECKS: tuple[Check, ...] = (
    datasets_have_their_files,
    files_have_their_datasets,
    datasets_are_on_their_way,
    items_have_known_labels,
    items_are_well_formed,
    items_keep_to_their_classifier,
    texts_are_approved_once,
    bands_are_those_of_their_items,
    snapshots_are_as_frozen,
    runs_made_what_they_say,
    work_folders_are_in_use,
)
