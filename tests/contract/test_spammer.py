"""One spammer sends 500 coordinated wrong corrections through the API: no trained label changes, and staff are told."""

import json

import pytest

from kalimtak.core.models import Alert
from training.models import TrainingDataItem

pytestmark = pytest.mark.django_db(transaction=True)

FLOOD = 500
BATCH = 250
NAMES = ("amber", "birch", "cedar", "daisy", "ember", "fjord", "gecko", "heron", "iris", "jade")


def text_of(number):
    hundred, ten, one = number // 100, number // 10 % 10, number % 10
    return (
        f"joy about {NAMES[hundred]} and {NAMES[ten]}s with {NAMES[one]}like friends of {NAMES[(ten + one) % 10]}town"
    )


@pytest.fixture
def post(installation, client):
    bearer = {"authorization": f"Bearer {installation.carla.plain}"}

    def post(path, body):
        answer = client.post(path, json.dumps(body), content_type="application/json", headers=bearer)
        assert answer.status_code < 300, answer.text
        return answer.json()

    return post


@pytest.fixture
def asked(post):
    """The ids of 500 answers, each to a text of its own, all of them `joy`."""
    found = []
    for start in range(0, FLOOD, BATCH):
        texts = [text_of(number) for number in range(start, start + BATCH)]
        found += post("/api/predict", {"classifier": "emotion", "texts": texts})["results"]
    assert {result["label"] for result in found} == {"joy"}
    return [result["interaction_id"] for result in found]


def trained(classifier):
    """What the next training would learn: text, label and weight of every item."""
    rows = TrainingDataItem.objects.filter(classifier=classifier).trainable()
    return set(rows.values_list("content_hash", "label", "weight"))


SPAMMERS = {
    "one key": lambda number: {},
    "one subject": lambda number: {"subject": "mallory"},
    "ten subjects": lambda number: {"subject": f"mallory {number % 10}"},
    "a subject for each": lambda number: {"subject": f"mallory {number}"},
}


@pytest.mark.parametrize("spammer", SPAMMERS)
def test_wrong_corrections_move_nothing(installation, post, asked, spammer):
    before = trained(installation.emotion)
    for number, interaction in enumerate(asked):
        body = {"interaction_id": interaction, "rating": 1, "correct_label": "anger", **SPAMMERS[spammer](number)}
        post("/api/feedback", body)
    stats = post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert stats["extracted"] == FLOOD
    assert (stats["approved"], stats["for_review"], stats["quarantined"]) == (0, 0, FLOOD)
    assert trained(installation.emotion) == before
    assert TrainingDataItem.objects.filter(status="quarantined").count() == FLOOD
    assert f"{FLOOD} items for emotion are in quarantine" in Alert.objects.get(kind="feedback_flood").message


def test_nor_do_they_while_each_hundred_is_curated_by_itself(installation, post, asked):
    before = trained(installation.emotion)
    for start in range(0, 300, 100):
        for number in range(start, start + 100):
            body = {"interaction_id": asked[number], "correct_label": "anger", "subject": f"mallory {number % 50}"}
            post("/api/feedback", body)
        post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert trained(installation.emotion) == before
    assert Alert.objects.filter(kind="feedback_flood", closed_at=None).exists()


def test_labels_at_random_wait_for_a_reviewer(installation, post, asked):
    before = trained(installation.emotion)
    for number, interaction in enumerate(asked[:120]):
        label = ("anger", "sadness")[number % 2]
        post("/api/feedback", {"interaction_id": interaction, "correct_label": label, "subject": f"mallory {number}"})
    post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert trained(installation.emotion) == before
    assert Alert.objects.filter(kind__in=["feedback_flood", "feedback_newcomers"], closed_at=None).exists()


def test_examples_without_an_answer_move_nothing_either(installation, post):
    before = trained(installation.emotion)
    for number in range(120):
        post("/api/feedback", {"classifier": "emotion", "text": text_of(number), "correct_label": "anger"})
    post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert trained(installation.emotion) == before
    assert TrainingDataItem.objects.filter(status="quarantined").count() == 120


def test_the_same_text_pasted_again_and_again_moves_nothing(installation, post):
    before = trained(installation.emotion)
    texts = [f"Joy, oh joy, buy the shining lamp at the corner shop today, offer {number}!" for number in range(120)]
    answers = post("/api/predict", {"classifier": "emotion", "texts": texts})["results"]
    for number, answer in enumerate(answers):
        body = {"interaction_id": answer["interaction_id"], "correct_label": "anger", "subject": f"s{number}"}
        post("/api/feedback", body)
    post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert trained(installation.emotion) == before


def test_an_honest_correction_beside_the_flood_is_learnt(installation, post, asked):
    """Known for two days, Amal corrects an answer of her own while the flood runs."""
    from datetime import timedelta

    from django.utils import timezone

    from interactions.models import Feedback

    earlier, now = post("/api/predict", {"texts": ["joy of old times", "joy mixed with tears"]})["results"]
    post("/api/feedback", {"interaction_id": earlier["interaction_id"], "rating": 3, "subject": "amal"})
    Feedback.objects.update(created_at=timezone.now() - timedelta(days=2))
    for interaction in asked[:120]:
        post("/api/feedback", {"interaction_id": interaction, "correct_label": "anger", "subject": "mallory"})
    post("/api/feedback", {"interaction_id": now["interaction_id"], "correct_label": "sadness", "subject": "amal"})
    before = trained(installation.emotion)
    stats = post("/api/admin/curate-training-data", {"classifier": "emotion"})
    assert stats["approved"] == 1
    assert [label for _, label, _ in trained(installation.emotion) - before] == ["sadness"]
