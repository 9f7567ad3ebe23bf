"""Texts with several labels on the admin's pages, and in the terminal's review."""

import io

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from training.models import TrainingDataItem

LABELS = ["money", "politics", "sport"]


@pytest.fixture
def topics(people):
    from registry.models import Classifier

    return Classifier.objects.create(
        slug="topics", name="Topics", family="classic", labels=LABELS, label_config={"multi_label": True},
        input_fields=["text"],
    )  # fmt: skip


@pytest.fixture
def items(topics):
    return [
        TrainingDataItem.objects.create(
            classifier=topics,
            fields={"text": f"text {number}"},
            label=label,
            status="review",
            content_hash=f"{number:064x}",
        )
        for number, label in enumerate(["money|sport", "|", "sport"])
    ]


@pytest.fixture
def asked(topics):
    from interactions.models import Feedback, UserInteraction
    from registry.models import ModelVersion

    version = ModelVersion.objects.create(classifier=topics, number=1, family="classic", artefact_digest="0" * 64)
    interaction = UserInteraction.objects.create(
        classifier=topics,
        version=version,
        fields={"text": "a bank"},
        label="money",
        labels="money|sport",
        confidence=0.8,
        scores={"money": 0.8, "sport": 0.6, "politics": 0.1},
        created_at=timezone.now(),
        reviewed_label="|",
        reviewed_at=timezone.now(),
    )
    Feedback.objects.create(
        interaction=interaction, source="key:a", correct_label="politics|sport", updated_at=timezone.now()
    )
    return interaction


def url(page, *args):
    return reverse(f"admin:training_trainingdataitem_{page}", args=args)


def test_the_desk_draws_a_box_per_label_and_ticks_those_proposed(items, sign_in):
    text = sign_in("rami").get(url("review", items[0].pk)).text
    ticked = [label for label in LABELS if f'name="label" value="{label}" checked' in text]
    assert ticked == ["money", "sport"]
    assert 'data-key="3"' in text and 'data-key="g"' in text
    assert '<bdi class="k-tag">money</bdi>' in text and "money|sport" not in text


@pytest.mark.parametrize(("chosen", "label"), [(["sport", "politics"], "politics|sport"), ([], "|")])
def test_a_reviewer_gives_several_labels_or_none(items, sign_in, chosen, label):
    sign_in("rami").post(url("verdict", items[0].pk), {"verdict": "relabel", "label": chosen})
    new = TrainingDataItem.objects.get(content_hash=items[0].content_hash, status="approved")
    assert new.label == label


def test_the_labels_that_it_has_approve_it(items, sign_in):
    sign_in("rami").post(url("verdict", items[0].pk), {"verdict": "relabel", "label": ["sport", "money"]})
    items[0].refresh_from_db()
    assert items[0].status == "approved"


def test_a_label_outside_the_set_changes_nothing(items, sign_in):
    client = sign_in("rami")
    data = {"verdict": "relabel", "label": ["sport", "weather"]}
    text = client.post(url("verdict", items[0].pk), data, follow=True).text
    assert "is not a label of topics" in text
    assert TrainingDataItem.objects.filter(status="review").count() == 3


def test_the_list_finds_items_by_one_of_their_labels(items, sign_in):
    client = sign_in("rami")

    def found(label):
        shown = client.get(url("changelist"), {"label": label}).context["cl"].queryset
        return sorted(item.label for item in shown)

    assert [found(label) for label in ("money", "sport", "politics", "|")] == [
        ["money|sport"],
        ["money|sport", "sport"],
        [],
        ["|"],
    ]
    page = client.get(url("changelist")).text
    assert '<bdi class="k-tag">sport</bdi>' in page and "none of the labels" in page


def test_many_items_get_several_labels_at_once(items, sign_in):
    client = sign_in("rami")
    keys = [item.pk for item in items]
    page = client.post(url("changelist"), {"action": "relabel_selected", "_selected_action": keys}).text
    assert page.count('type="checkbox"') >= 3
    client.post(url("relabel"), {"_selected_action": keys, "label": ["money", "sport"]})
    approved = TrainingDataItem.objects.filter(status="approved")
    assert {item.label for item in approved} == {"money|sport"} and approved.count() == 2


def test_item_interaction_and_feedback_pages_tell_labels_apart(items, asked, sign_in):
    client = sign_in("olga")
    pages = [
        url("change", items[0].pk),
        reverse("admin:interactions_userinteraction_change", args=[asked.pk]),
        reverse("admin:interactions_userinteraction_changelist"),
        reverse("admin:interactions_feedback_changelist"),
        reverse("admin:interactions_feedback_change", args=[asked.feedback.get().pk]),
    ]
    for page in pages:
        text = client.get(page).text
        assert '<bdi class="k-tag">sport</bdi>' in text, page
    assert "none of the labels" in client.get(pages[1]).text  # what the reviewer found


def test_the_terminal_takes_several_labels(items, monkeypatch):
    answers = iter(["sport, politics", "weather", "|", "a", "a"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    out = io.StringIO()
    call_command("review", "topics", reviewer="olga", stdout=out)
    assert "label: money, sport" in out.getvalue() and "label: none of the labels" in out.getvalue()
    assert "'weather' is neither a choice nor a label." in out.getvalue()
    approved = TrainingDataItem.objects.filter(status="approved").order_by("content_hash")
    assert [item.label for item in approved] == ["politics|sport", "|", "sport"]
