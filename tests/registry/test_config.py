"""`registry.config.models_sync`: the file proposes, an administrator's later edit stands."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as installed

from kalimtak.core.errors import InvalidInput
from kalimtak.core.models import AuditEvent
from registry.config import SyncReport, models_sync
from registry.models import Classifier

pytestmark = pytest.mark.django_db

TWO = """
- name: emotion
  type: classic
  label_config: {labels: [joy, sadness]}
- name: Spam filter
  type: classic
  route: /classify/spam
  label_config: {labels: [ham, spam]}
  policy: {confidence_floor: 0.7}
"""


@pytest.fixture
def sync(tmp_path: Path) -> Any:
    def run(text: str, **options: Any) -> SyncReport:
        path = tmp_path / "models.yaml"
        path.write_text(text, encoding="utf-8")
        return models_sync(path, actor="olga", **options)

    return run


def test_the_shipped_file_makes_the_demo_classifiers() -> None:
    report = models_sync(installed.KALIMTAK_MODELS_FILE, actor="system")
    enabled = set(Classifier.objects.serving().values_list("slug", flat=True))
    assert enabled == {"emotion", "intent", "sentiment", "moderation", "clarity", "emotion-backup", "sarcasm"}
    assert set(report.created) - enabled == {"emotion-distilbert", "emotion-lora"}
    assert Classifier.objects.get(is_default=True).slug == "emotion"
    clarity = Classifier.objects.get(slug="clarity")
    assert (clarity.input_fields, clarity.label_field) == (["question", "context"], "clarity_label")
    assert models_sync(installed.KALIMTAK_MODELS_FILE, actor="system").unchanged == report.created


def test_a_row_reads_back_as_what_the_file_says(sync: Any) -> None:
    assert sync(TWO).created == ("emotion", "spam")
    spam = Classifier.objects.get(slug="spam")
    assert (spam.name, spam.family, spam.labels, spam.input_fields) == (
        "Spam filter",
        "classic",
        ["ham", "spam"],
        ["text"],
    )
    assert spam.get_policy().confidence_floor == 0.7
    assert spam.get_recipe().model.model_name == "minilm"
    assert spam.get_label_config().labels == ("ham", "spam")
    assert AuditEvent.objects.filter(actor="olga", action="classifier.created", target="spam").exists()


FOUR = """
- name: emotion
  type: classic
  label_config: {labels: [joy, sadness]}
  policy: {backup: second, sarcasm: irony, cascade: quick}
- name: second
  type: classic
  label_config: {labels: [sadness, joy]}
- name: quick
  type: classic
  label_config: {labels: [joy, sadness]}
- name: irony
  type: classic
  label_config: {labels: [sincere, sarcastic]}
"""


def test_a_policy_may_name_classifiers_that_stand_further_down(sync: Any) -> None:
    sync(FOUR)
    policy = Classifier.objects.get(slug="emotion").get_policy()
    assert (policy.backup, policy.sarcasm, policy.cascade) == ("second", "irony", "quick")


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("backup: second", "backup: third", "policy.backup: there is no classifier 'third'; add it, or name one"),
        ("[sadness, joy]", "[sadness, joy, fear]", "policy.backup: second answers fear, which emotion does not"),
        ("[sadness, joy]}", "[sadness, joy], multi_label: true}", "policy.backup: second gives a text several labels"),
        ("[sadness, joy]}", "[sadness, joy]}\n  data_config: {text_field: body}", "policy.backup: second reads body"),
        ("[sadness, joy]}", "[sadness, joy]}\n  enabled: false", "policy.backup: second is disabled; enable it"),
        ("[sadness, joy]}", "[sadness, joy]}\n  policy: {backup: emotion}", "in a circle: emotion → second → emotion"),
        ("sarcastic]", "ironic]", "policy.sarcasm: irony does not tell one label of several, or has none called"),
        ("sarcasm: irony", "sarcasm: gone", "policy.sarcasm: there is no classifier 'gone'"),
        (
            "quick\n  type: classic\n  label_config: {labels: [joy, sadness]}",
            "quick\n  type: classic\n  label_config: {labels: [joy, fear]}",
            "policy.cascade: quick answers fear",
        ),
    ],
)
def test_a_helper_that_cannot_help_is_refused_by_key_with_its_remedy(
    sync: Any, before: str, after: str, problem: str
) -> None:
    sync(FOUR)
    assert before in FOUR
    with pytest.raises(InvalidInput) as refusal:
        sync(FOUR.replace(before, after))
    assert refusal.value.message.startswith("models.yaml (emotion): policy.")
    assert problem in refusal.value.message
    assert Classifier.objects.get(slug="emotion").get_policy().backup == "second"


def test_a_backup_may_know_fewer_labels_and_a_cascade_may_not(sync: Any) -> None:
    third = "[joy, sadness, fear]"
    for name in ("emotion", "quick"):
        head = f"- name: {name}\n  type: classic\n  label_config: {{labels: "
        assert head + "[joy, sadness]" in FOUR
    wider = FOUR.replace(
        "emotion\n  type: classic\n  label_config: {labels: [joy, sadness]",
        f"emotion\n  type: classic\n  label_config: {{labels: {third}",
    )
    with pytest.raises(InvalidInput, match=r"policy.cascade: quick never answers fear"):
        sync(wider)
    sync(wider.replace(", cascade: quick", ""))


def test_a_helper_that_was_disabled_by_hand_does_not_keep_the_file_from_being_applied(sync: Any) -> None:
    sync(FOUR)
    Classifier.objects.filter(slug="second").update(enabled=False)
    assert sync(FOUR).unchanged
    with pytest.raises(InvalidInput, match="second is disabled"):
        sync(FOUR.replace("cascade: quick", "cache: true"))


def test_an_edit_in_the_admin_survives_until_the_entry_changes(sync: Any) -> None:
    sync(TWO)
    Classifier.objects.filter(slug="spam").update(description="edited by Olga")
    assert sync(TWO).unchanged == ("emotion", "spam")
    assert Classifier.objects.get(slug="spam").description == "edited by Olga"
    assert sync(TWO.replace("0.7", "0.8")).updated == ("spam",)
    assert Classifier.objects.get(slug="spam").description == ""


def test_the_order_of_keys_and_blanks_is_no_change(sync: Any) -> None:
    sync("- name: emotion\n  type: classic\n  label_config: {labels: [joy, sadness]}")
    report = sync("models:\n- {type: classic,   label_config: {labels: [joy, sadness]}, name: emotion}")
    assert report.unchanged == ("emotion",)


def test_an_entry_that_left_is_reported_and_disabled_only_on_request(sync: Any) -> None:
    sync(TWO)
    only_emotion = TWO[: TWO.index("- name: Spam")]
    assert sync(only_emotion).missing == ("spam",)
    assert Classifier.objects.get(slug="spam").enabled
    assert sync(only_emotion, prune=True).disabled == ("spam",)
    assert not Classifier.objects.get(slug="spam").enabled
    assert sync(only_emotion).missing == ()
    assert sync(TWO).updated == ("spam",)
    assert Classifier.objects.get(slug="spam").enabled


def test_a_classifier_made_by_hand_is_left_alone(sync: Any, emotion: Any) -> None:
    Classifier.objects.create(slug="mine", name="mine", family="classic", input_fields=["text"])
    report = sync("- {name: other, type: classic, label_config: {labels: [a, b]}}", prune=True)
    assert report.disabled == ()
    assert Classifier.objects.get(slug="mine").enabled


def test_the_administrators_choice_of_default_survives(sync: Any) -> None:
    sync(TWO)
    Classifier.objects.filter(slug="emotion").update(is_default=False)
    Classifier.objects.filter(slug="spam").update(is_default=True)
    sync(TWO.replace("0.7", "0.8"))
    assert Classifier.objects.get(is_default=True).slug == "spam"


def test_a_default_that_is_disabled_hands_over(sync: Any) -> None:
    sync(TWO)
    sync(TWO.replace("- name: emotion", "- name: emotion\n  enabled: false"))
    assert Classifier.objects.get(is_default=True).slug == "spam"


def test_a_slip_names_file_entry_and_key_and_changes_nothing(sync: Any) -> None:
    with pytest.raises(InvalidInput, match=r"models\.yaml, entry 2 \(Spam filter\): policy\.confidence_flor"):
        sync(TWO.replace("confidence_floor", "confidence_flor"))
    assert not Classifier.objects.exists()


def test_a_value_that_no_column_holds_is_refused_with_the_entry_and_all_before_it(sync: Any) -> None:
    with pytest.raises(InvalidInput, match=r"Spam filter.*description"):
        sync(TWO.replace("route:", f"description: {'long ' * 80}\n  route:"))
    assert not Classifier.objects.exists()


@pytest.mark.parametrize("content", [b"", b"a: b", b"- 1", b"\xff\xfe", b"[" * 100])
def test_a_file_that_is_no_list_of_models_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"models\.yaml"):
        models_sync(path, actor="olga")


def test_a_file_that_is_missing_says_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--config"):
        models_sync(tmp_path / "nowhere.yaml", actor="olga")


ENTRY = "- {name: emotion, type: classic, label_config: {labels: [%s]}}"


def test_labels_of_a_trained_classifier_can_only_be_appended(sync: Any, make_version: Any) -> None:
    make_version()
    assert sync(ENTRY % "joy, sadness, anger").updated == ("emotion",)
    assert Classifier.objects.get(slug="emotion").labels == ["joy", "sadness", "anger"]
    for labels in ("sadness, joy, anger", "joy, sadness", "joy, gloom, anger"):
        with pytest.raises(InvalidInput, match="only be added after joy, sadness, anger"):
            sync(ENTRY % labels)


def test_labels_of_an_untrained_classifier_are_free(sync: Any, emotion: Any) -> None:
    sync(ENTRY % "sadness, anger")
    assert Classifier.objects.get(slug="emotion").labels == ["sadness", "anger"]


def test_labels_that_the_data_gave_stay_where_the_entry_lists_none(sync: Any, make_version: Any) -> None:
    make_version()
    sync("- {name: emotion, type: classic}")
    assert Classifier.objects.get(slug="emotion").labels == ["joy", "sadness"]


def test_inputs_of_a_trained_classifier_stay(sync: Any, make_version: Any) -> None:
    make_version()
    with pytest.raises(InvalidInput, match="data_config"):
        sync("- {name: emotion, type: classic, data_config: {text_field: message}}")


def test_a_trained_classifier_keeps_its_number_of_labels_per_text(sync: Any, emotion: Any, make_version: Any) -> None:
    several = "- {name: emotion, type: classic, label_config: {labels: [joy, sadness], multi_label: true}}"
    sync(several)
    assert Classifier.objects.get(slug="emotion").multi_label
    make_version()
    with pytest.raises(InvalidInput, match=r"label_config.multi_label: emotion has trained versions"):
        sync(ENTRY % "joy, sadness")
    assert Classifier.objects.get(slug="emotion").multi_label
