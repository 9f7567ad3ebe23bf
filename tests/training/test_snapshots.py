"""The golden set and the snapshots: what a run sees is frozen, repeatable, and never what it is judged on."""

import random

import pytest

from kalimtak.core.errors import Conflict
from registry.models import Classifier
from registry.recipe import Recipe
from training.models import Dataset, DatasetSnapshot, SnapshotItem, TrainingDataItem
from training.services import golden_digest, golden_reserve, snapshot_freeze

pytestmark = pytest.mark.django_db


@pytest.fixture
def classifier() -> Classifier:
    return Classifier.objects.create(
        slug="mood", name="Mood", family="classic", labels=["glad", "sad", "calm"], input_fields=["text"]
    )


def add_items(classifier: Classifier, count: int, label: str = "glad", **values: object) -> list[TrainingDataItem]:
    start = TrainingDataItem.objects.count()
    values.setdefault("status", "approved")
    return TrainingDataItem.objects.bulk_create(
        TrainingDataItem(
            classifier=classifier,
            fields={"text": f"{label} {number}"},
            label=label,
            content_hash=f"{number:064x}",
            **values,
        )
        for number in range(start, start + count)
    )


def rehearsal(classifier: Classifier) -> Dataset:
    return Dataset.objects.create(classifier=classifier, name="old", origin="upload", role="rehearsal", state="ready")


def hashes(snapshot: DatasetSnapshot, split: str) -> set[str]:
    return set(SnapshotItem.objects.filter(snapshot=snapshot, split=split).values_list("content_hash", flat=True))


def labels_of(snapshot: DatasetSnapshot, split: str) -> dict[str, int]:
    return snapshot.counts[split]


@pytest.mark.parametrize(("items", "reserved"), [(20, 4), (100, 20), (400, 50), (2_000, 200), (12_000, 1_000)])
def test_the_golden_set_is_a_tenth_but_50_to_1000_and_at_most_a_fifth(
    classifier: Classifier, items: int, reserved: int
) -> None:
    add_items(classifier, items // 2, "glad")
    add_items(classifier, items // 2, "sad")
    assert golden_reserve(classifier) == reserved
    assert TrainingDataItem.objects.golden().count() == reserved


def test_the_golden_set_is_reserved_once(classifier: Classifier) -> None:
    add_items(classifier, 100)
    golden_reserve(classifier)
    digest = golden_digest(classifier)
    add_items(classifier, 500)
    assert golden_reserve(classifier) == 0
    assert golden_digest(classifier) == digest


def test_an_imported_golden_set_is_taken_as_it_is(classifier: Classifier) -> None:
    add_items(classifier, 100)
    imported = add_items(classifier, 3, "sad", split="test")
    assert golden_reserve(classifier) == 0
    snapshot = snapshot_freeze(classifier_with_two_labels(classifier), seed=1)
    assert hashes(snapshot, "test") == {item.content_hash for item in imported}


def classifier_with_two_labels(classifier: Classifier) -> Classifier:
    add_items(classifier, 10, "calm")
    return classifier


def test_the_golden_set_is_stratified_and_never_takes_the_last_of_a_label(classifier: Classifier) -> None:
    add_items(classifier, 80, "glad")
    add_items(classifier, 20, "sad")
    add_items(classifier, 1, "calm")
    golden_reserve(classifier)
    counts = [TrainingDataItem.objects.golden().filter(label=label).count() for label in ("glad", "sad", "calm")]
    assert counts == [16, 4, 0]


def test_items_that_are_not_approved_or_not_selected_stay_out(classifier: Classifier) -> None:
    add_items(classifier, 10, "glad")
    add_items(classifier, 10, "sad")
    outside = [
        *add_items(classifier, 3, "sad", status="candidate"),
        *add_items(classifier, 3, "sad", status="rejected"),
        *add_items(classifier, 3, "sad", selected=False),
    ]
    snapshot = snapshot_freeze(classifier, seed=1)
    seen = hashes(snapshot, "train") | hashes(snapshot, "valid")
    assert len(seen) == 20
    assert not seen & {item.content_hash for item in outside}


def test_the_same_items_give_the_same_snapshot(classifier: Classifier) -> None:
    add_items(classifier, 40, "glad")
    add_items(classifier, 40, "sad")
    first = snapshot_freeze(classifier, seed=7)
    again = snapshot_freeze(classifier, seed=7)
    assert again.pk == first.pk
    add_items(classifier, 1, "sad")
    assert snapshot_freeze(classifier, seed=7).digest != first.digest


def test_another_seed_spares_other_rows_for_validation(classifier: Classifier) -> None:
    add_items(classifier, 60, "glad")
    add_items(classifier, 60, "sad")
    assert hashes(snapshot_freeze(classifier, seed=1), "valid") != hashes(snapshot_freeze(classifier, seed=2), "valid")


def test_what_a_snapshot_chose_does_not_depend_on_the_order_of_import() -> None:
    chosen = []
    for slug, order in (("one", 1), ("two", 2)):
        classifier = Classifier.objects.create(slug=slug, name=slug, family="classic", input_fields=["text"])
        numbers = list(range(60))
        random.Random(order).shuffle(numbers)
        TrainingDataItem.objects.bulk_create(
            TrainingDataItem(
                classifier=classifier,
                fields={"text": str(number)},
                label="glad" if number % 2 else "sad",
                content_hash=f"{number:064x}",
                status="approved",
            )
            for number in numbers
        )
        golden_reserve(classifier)
        chosen.append((golden_digest(classifier), hashes(snapshot_freeze(classifier, seed=1), "valid")))
    assert chosen[0] == chosen[1]


def test_a_tenth_of_each_label_validates_and_a_rare_label_spares_none(classifier: Classifier) -> None:
    add_items(classifier, 50, "glad")
    add_items(classifier, 5, "sad")
    add_items(classifier, 4, "calm")
    snapshot = snapshot_freeze(classifier, seed=1)
    assert labels_of(snapshot, "valid") == {"glad": 5, "sad": 1}
    assert labels_of(snapshot, "train") == {"glad": 45, "sad": 4, "calm": 4}


def test_rows_imported_for_validation_validate(classifier: Classifier) -> None:
    add_items(classifier, 30, "glad")
    add_items(classifier, 30, "sad")
    imported = add_items(classifier, 6, "sad", split="valid")
    snapshot = snapshot_freeze(classifier, seed=1)
    assert hashes(snapshot, "valid") == {item.content_hash for item in imported}
    assert labels_of(snapshot, "train") == {"glad": 30, "sad": 30}


def test_a_text_of_the_golden_set_is_never_trained_on(classifier: Classifier) -> None:
    add_items(classifier, 20, "glad")
    add_items(classifier, 20, "sad")
    held_out = add_items(classifier, 5, "glad", split="test")
    twin = held_out[0]
    TrainingDataItem.objects.create(
        classifier=classifier,
        fields=twin.fields,
        label="sad",
        content_hash=twin.content_hash,
        status="approved",
    )
    snapshot = snapshot_freeze(classifier, seed=1)
    assert twin.content_hash not in hashes(snapshot, "train") | hashes(snapshot, "valid")
    assert snapshot.counts["left_out"]["same text in the golden set"] == 1


def test_rehearsal_makes_its_share_of_the_training_rows(classifier: Classifier) -> None:
    add_items(classifier, 40, "glad", split="train")
    add_items(classifier, 40, "sad", split="train")
    add_items(classifier, 2, "sad", split="valid")
    old = rehearsal(classifier)
    for label in ("glad", "sad"):
        add_items(classifier, 100, label, dataset=old)
    recipe = Recipe.from_dict({"data_config": {"replay_share": 0.2}})
    snapshot = snapshot_freeze(classifier, seed=1, recipe=recipe)
    assert labels_of(snapshot, "train") == {"glad": 50, "sad": 50}
    assert snapshot.replay_share == pytest.approx(0.2)


def test_rehearsal_is_drawn_in_the_shares_of_its_own_labels(classifier: Classifier) -> None:
    for label in ("glad", "sad"):
        add_items(classifier, 40, label, split="train")
        add_items(classifier, 1, label, split="valid")
    old = rehearsal(classifier)
    add_items(classifier, 150, "glad", dataset=old)
    add_items(classifier, 50, "sad", dataset=old)
    snapshot = snapshot_freeze(classifier, seed=1, recipe=Recipe.from_dict({"data_config": {"replay_share": 0.5}}))
    assert labels_of(snapshot, "train") == {"glad": 40 + 60, "sad": 40 + 20}, "80 of the old, three to one"
    assert snapshot.replay_share == pytest.approx(0.5)


def test_sample_sizes_are_kept_stratified_with_rehearsal_inside(classifier: Classifier) -> None:
    add_items(classifier, 80, "glad")
    add_items(classifier, 80, "sad")
    old = rehearsal(classifier)
    for label in ("glad", "sad"):
        add_items(classifier, 100, label, dataset=old)
    recipe = Recipe.from_dict({"data_config": {"train_sample_size": 50, "valid_sample_size": 4, "replay_share": 0.2}})
    snapshot = snapshot_freeze(classifier, seed=1, recipe=recipe)
    assert labels_of(snapshot, "train") == {"glad": 25, "sad": 25}
    assert labels_of(snapshot, "valid") == {"glad": 2, "sad": 2}
    assert snapshot.replay_share == pytest.approx(0.2)
    assert snapshot.counts["left_out"]["over the sample sizes or the rehearsal share"] == 360 - 54


def test_a_correction_counts_more(classifier: Classifier) -> None:
    add_items(classifier, 10, "glad")
    corrected = add_items(classifier, 10, "sad", origin="corrected")
    recipe = Recipe.from_dict({"training_config": {"correction_weight": 4}})
    snapshot = snapshot_freeze(classifier, seed=1, recipe=recipe)
    weights = dict(SnapshotItem.objects.filter(snapshot=snapshot).values_list("item_id", "weight"))
    assert {weights[item.pk] for item in corrected} == {4.0}
    assert set(weights.values()) == {1.0, 4.0}


def test_a_snapshot_stays_when_its_items_change(classifier: Classifier) -> None:
    add_items(classifier, 10, "glad")
    items = add_items(classifier, 10, "sad")
    snapshot = snapshot_freeze(classifier, seed=1)
    items[0].delete()
    TrainingDataItem.objects.filter(label="sad").update(status="rejected")
    assert SnapshotItem.objects.filter(snapshot=snapshot, label="sad").count() == 10


def test_without_items_it_says_how_to_get_some(classifier: Classifier) -> None:
    with pytest.raises(Conflict, match=r"import_dataset FILE --classifier mood.*make_sample_data") as refused:
        snapshot_freeze(classifier, seed=1)
    assert refused.value.code == "no_data"


def test_one_label_is_not_enough(classifier: Classifier) -> None:
    add_items(classifier, 30, "glad")
    with pytest.raises(Conflict, match="All approved examples of mood to train on say 'glad'") as refused:
        snapshot_freeze(classifier, seed=1)
    assert refused.value.code == "one_class"
    assert not DatasetSnapshot.objects.exists()


def test_rows_for_validation_alone_are_nothing_to_train_on(classifier: Classifier) -> None:
    add_items(classifier, 10, "glad", split="valid")
    add_items(classifier, 10, "sad", split="valid")
    with pytest.raises(Conflict, match="set aside for validation") as refused:
        snapshot_freeze(classifier, seed=1)
    assert refused.value.code == "no_data"
    add_items(classifier, 10, "glad")
    with pytest.raises(Conflict, match="to train on say 'glad'") as refused:
        snapshot_freeze(classifier, seed=1)
    assert refused.value.code == "one_class"
