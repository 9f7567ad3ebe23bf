"""`registry.recipe`: what `models.yaml` may say, and what becomes of it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from registry.recipe import (
    DataConfig,
    Entry,
    GatePolicy,
    LabelConfig,
    Policy,
    Recipe,
    RecipeError,
    TrainingConfig,
    apply_overrides,
    parse_entry,
    parse_file,
    unused_keys,
)

SHIPPED = Path(__file__).parents[2] / "models.yaml"

# Two models as a user of the Clarity framework describes them.
CLARITY = """
models:
  - name: roberta-large
    type: encoder
    enabled: false
    route: /classify/roberta-large
    model_config: {model_name: roberta-large, num_labels: 3}
    training_config:
      max_length: 256
      batch_size: 8
      learning_rate: 1e-5
      num_epochs: 5
      eval_strategy: epoch
      save_strategy: epoch
      early_stopping_patience: 2
    label_config:
      labels: [Clear Reply, Clear Non-Reply, Ambivalent]
      mapping: {clear: Clear Reply, 1: Clear Non-Reply}
    data_config:
      train_sample_size: 600
      valid_sample_size: 200
      label_field: sentiment
      question_field: text
      context_field: context
    tensorboard_config: {auto_start: true, port: 6006}
  - name: opt-1.3b
    type: lora
    enabled: false
    route: /classify/opt-1-3b
    model_config: {model_name: facebook/opt-1.3b, num_labels: 3, use_8bit: true}
    training_config: {batch_size: 2, learning_rate: 3e-4, num_epochs: 5, gradient_accumulation_steps: 8}
    label_config: {labels: [Clear Reply, Clear Non-Reply, Ambivalent]}
"""


def entry(**keys: object) -> Entry:
    return parse_entry({"name": "emotion", "type": "encoder"} | keys, where="models.yaml")


def refusal(**keys: object) -> str:
    with pytest.raises(RecipeError) as caught:
        entry(**keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the shipped file ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[str, Entry]:
    return {each.route: each for each in parse_file(SHIPPED.read_text("utf-8"), where="models.yaml")}


def test_the_shipped_file_serves_the_five_demo_classifiers_emotion_first_and_their_helpers(
    shipped: dict[str, Entry],
) -> None:
    served = [route for route, each in shipped.items() if each.enabled]
    assert served == ["emotion", "intent", "sentiment", "moderation", "clarity", "emotion-backup", "sarcasm"]
    assert set(shipped) - set(served) == {"emotion-distilbert", "emotion-lora"}


def test_the_shipped_emotion_classifiers_share_their_labels(shipped: dict[str, Entry]) -> None:
    labels = ("joy", "sadness", "anger", "fear", "love", "surprise", "neutral", "disgust")
    assert {shipped[route].labels.labels for route in ("emotion", "emotion-distilbert", "emotion-lora")} == {labels}


def test_every_label_that_is_served_is_described_to_reviewers(shipped: dict[str, Entry]) -> None:
    for each in shipped.values():
        if each.enabled:
            assert list(each.labels.descriptions) == list(each.labels.labels)


def test_clarity_reads_a_question_and_its_context(shipped: dict[str, Entry]) -> None:
    data = shipped["clarity"].recipe.data
    assert data.input_fields == ("question", "context")
    assert data.label_field == "clarity_label"


def test_the_larger_emotion_models_are_trained_as_published(shipped: dict[str, Entry]) -> None:
    for route in ("emotion-distilbert", "emotion-lora"):
        recipe = shipped[route].recipe
        assert (recipe.model.model_name, recipe.model.num_labels, recipe.model.max_length) == (
            "distilbert-base-uncased",
            8,
            128,
        )
        training = recipe.training
        assert (training.num_epochs, training.batch_size, training.learning_rate, training.warmup_steps) == (
            3,
            16,
            1e-4,
            100,
        )
    lora = shipped["emotion-lora"].recipe.model.lora
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (8, 16, 0.1, ("q_lin", "v_lin"))


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_a_clarity_configuration_is_understood() -> None:
    roberta, opt = parse_file(CLARITY, where="models.yaml")
    assert (roberta.route, opt.route) == ("roberta-large", "opt-1-3b")
    assert roberta.recipe.model.max_length == 256
    assert roberta.recipe.training.learning_rate == 1e-5
    assert roberta.recipe.training.early_stopping_patience == 2
    assert roberta.recipe.data.input_fields == ("text", "context")
    assert roberta.recipe.data.label_field == "sentiment"
    assert roberta.recipe.data.train_sample_size == 600
    assert roberta.labels.mapping == {"clear": "Clear Reply", "1": "Clear Non-Reply"}
    assert opt.recipe.model.use_8bit
    assert (opt.recipe.training.batch_size, opt.recipe.training.gradient_accumulation_steps) == (2, 8)


def test_the_defaults_are_the_contract_s() -> None:
    plain = entry()
    assert plain.enabled
    assert plain.kind == "classification"
    assert plain.labels == LabelConfig()
    model, training, policy = plain.recipe.model, plain.recipe.training, plain.policy
    assert (model.model_name, model.max_length, model.num_labels, model.use_8bit) == ("minilm", 128, None, False)
    assert (model.lora.r, model.lora.lora_alpha, model.lora.lora_dropout) == (8, 16, 0.1)
    assert model.lora.target_modules == "auto"
    assert (training.num_epochs, training.batch_size, training.learning_rate) == (3, 32, 1e-4)
    assert (training.warmup_steps, training.warmup_ratio, training.gradient_accumulation_steps) == (100, None, 1)
    assert (training.mixed_precision, training.class_weights, training.device) == ("auto", "none", "auto")
    assert (training.eval_strategy, training.save_strategy) == ("epoch", "epoch")
    assert plain.recipe.data.input_fields == ("text",)
    assert plain.recipe.tensorboard.port == 6006
    assert (policy.confidence_floor, policy.min_new_items, policy.auto_deploy) == (0.5, 50, "never")
    assert (policy.review.min_rating, policy.review.approve, policy.review.source_share) == (4, "auto", 0.1)
    assert (policy.gate.max_drop, policy.gate.per_class_drop, policy.gate.min_samples) == (0.01, None, 50)


def test_the_default_batch_depends_on_the_type() -> None:
    assert entry(type="lora", enabled=False).recipe.training.batch_size == 16
    assert entry(type="lora", enabled=False, training_config={"batch_size": 4}).recipe.training.batch_size == 4


def test_an_empty_value_means_the_default() -> None:
    empty = entry(route=None, description=None, policy=None, training_config={"num_epochs": None, "seed": None})
    assert empty == entry()


@pytest.mark.parametrize("length", [{"model_config": {"max_length": 256}}, {"training_config": {"max_length": 256}}])
def test_max_length_may_stand_in_either_section(length: dict) -> None:
    assert entry(**length).recipe.model.max_length == 256


def test_two_different_max_lengths_are_refused() -> None:
    message = refusal(model_config={"max_length": 128}, training_config={"max_length": 256})
    assert "training_config.max_length: differs from model_config.max_length" in message


def test_a_warmup_ratio_replaces_the_warmup_steps() -> None:
    training = entry(training_config={"warmup_ratio": 0.1}).recipe.training
    assert (training.warmup_ratio, training.warmup_steps) == (0.1, 0)
    both = refusal(training_config={"warmup_ratio": 0.1, "warmup_steps": 5})
    assert "training_config.warmup_ratio: give either" in both


@pytest.mark.parametrize(
    ("name", "route", "slug"),
    [
        ("Emotion Model", None, "emotion-model"),
        ("opt-1.3b", None, "opt-1-3b"),
        ("Café crème", None, "cafe-creme"),
        ("مشاعر", "emotions-ar", "emotions-ar"),
        ("x", "/classify/opt-1-3b", "opt-1-3b"),
        ("x", "/api/classify/opt-1-3b/", "opt-1-3b"),
        ("x", "roberta_large", "roberta_large"),
    ],
)
def test_the_slug_is_the_last_part_of_the_route_or_made_from_the_name(name: str, route: str | None, slug: str) -> None:
    assert entry(name=name, route=route).route == slug


@pytest.mark.parametrize("route", ["/other/x", "Upper", "a b", "-x", "_datasets", "../x", "/classify/", "x" * 64, "/"])
def test_a_route_that_is_no_slug_is_refused(route: str) -> None:
    assert refusal(route=route).startswith("models.yaml (emotion): route: ")


def test_a_name_that_makes_no_slug_needs_a_route() -> None:
    assert "route: is missing, and none can be made from the name" in refusal(name="مشاعر")


def test_scientific_notation_without_a_point_is_a_number() -> None:
    assert yaml.safe_load("1e-5") == "1e-5"
    source = "[{name: x, type: encoder, training_config: {learning_rate: 1e-5}}]"
    assert parse_file(source, where="f")[0].recipe.training.learning_rate == 1e-5


def test_a_bare_no_is_understood_where_it_is_a_choice() -> None:
    source = "[{name: x, type: encoder, training_config: {eval_strategy: no, mixed_precision: no}}]"
    training = parse_file(source, where="f")[0].recipe.training
    assert (training.eval_strategy, training.mixed_precision) == ("no", "no")


def test_an_empty_list_of_models_is_no_error_but_an_empty_file_is() -> None:
    assert parse_file("models: []", where="f") == []
    with pytest.raises(RecipeError, match="f: expected a list of up to 500 models, got None"):
        parse_file("", where="f")


# ---- overrides -------------------------------------------------------------------------------------------------------


def test_assignments_change_one_run_s_recipe() -> None:
    recipe = entry().recipe
    changed = apply_overrides(
        recipe,
        [
            "training_config.num_epochs=2",
            "training_config.learning_rate=1e-5",
            "training_config.warmup_ratio=0.1",
            "training_config.max_length=64",
            "model_config.lora.r=4",
            "data_config.train_sample_size=600",
            "training_config.ngram_range=[1, 3]",
        ],
    )
    assert (changed.training.num_epochs, changed.training.learning_rate) == (2, 1e-5)
    assert (changed.training.warmup_ratio, changed.training.warmup_steps) == (0.1, 0)
    assert (changed.model.max_length, changed.model.lora.r) == (64, 4)
    assert changed.data.train_sample_size == 600
    assert changed.training.ngram_range == (1, 3)
    assert recipe == entry().recipe


def test_an_empty_assignment_restores_a_default() -> None:
    changed = apply_overrides(entry(training_config={"num_epochs": 9}).recipe, ["training_config.num_epochs="])
    assert changed.training.num_epochs == 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training_config.num_epoch=2", "--set: training_config.num_epoch: unknown key; did you mean num_epochs?"),
        ("training_config.num_epochs=many", "--set: training_config.num_epochs: expected a whole number"),
        ("num_epochs=2", "--set: num_epochs: expected section.key=value with a section among model_config"),
        ("policy.confidence_floor=0", "expected section.key=value"),
        ("training_config.num_epochs", "expected section.key=value"),
        ("training_config.num_epochs.x=1", "there is no section num_epochs"),
        ("model_config.members=[a]", "--set: model_config.members: expected a list of 2 to 20 items"),
        ("training_config.device=[", "--set: training_config.device: line 1"),
        ("training_config.device=!!python/name:os.system", "--set: training_config.device: line 1"),
        ("", "expected section.key=value"),
    ],
)
def test_a_bad_assignment_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        apply_overrides(entry().recipe, [assignment])


# ---- storing ---------------------------------------------------------------------------------------------------------


def test_everything_survives_json(shipped: dict[str, Entry]) -> None:
    for each in [*shipped.values(), *parse_file(CLARITY, where="f")]:
        stored = json.loads(json.dumps(each.to_dict(), allow_nan=False))
        assert parse_entry(stored, where="f") == each
        recipe = json.loads(json.dumps(each.recipe.to_dict()))
        assert Recipe.from_dict(recipe) == each.recipe
        assert Policy.from_dict(json.loads(json.dumps(each.policy.to_dict()))) == each.policy
        assert LabelConfig.from_dict(each.labels.to_dict()) == each.labels


def test_stored_sections_are_read_as_strictly_and_may_refuse_what_comes_later() -> None:
    with pytest.raises(RecipeError, match="GatePolicy: max_drop: expected a number"):
        GatePolicy.from_dict({"max_drop": "none"})
    assert Policy.from_dict({"auto_deploy": "canary"}).auto_deploy == "canary"
    with pytest.raises(RecipeError, match=r"policy: auto_deploy: 'canary' is not available yet"):
        Policy.from_dict({"auto_deploy": "canary"}, where="policy", allow_later=False)


def test_defaults_are_not_shared_between_sections() -> None:
    LabelConfig().mapping["x"] = "y"
    assert LabelConfig().mapping == {}


def test_sections_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        TrainingConfig().num_epochs = 9  # type: ignore[misc]
    assert DataConfig(text_field="review").input_fields == ("review",)


# ---- what a type ignores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "changes", "unused"),
    [
        (
            "classic",
            {"label_smoothing": 0.1, "num_epochs": 5, "C": 2, "max_features": 900},
            "label_smoothing num_epochs",
        ),
        ("classic", {"early_stopping_patience": 2, "start_from": "parent"}, "early_stopping_patience start_from"),
        ("embedding", {"ngram_range": [1, 1], "C": 2, "start_from": "parent"}, "ngram_range start_from"),
        ("encoder", {"C": 2, "max_features": 900, "num_epochs": 5, "start_from": "parent"}, "C max_features"),
        ("lora", {"C": 2, "learning_rate": 0.001, "batch_size": 4}, "C"),
        ("ensemble", {"class_weights": "balanced", "start_from": "parent", "seed": 4}, "class_weights start_from"),
        ("custom", {"num_epochs": 5, "C": 2}, ""),
        ("classic", {"batch_size": 16, "warmup_ratio": 0.1}, "warmup_ratio"),  # as a recipe written for lora has it
        ("classic", {"num_epochs": 3, "label_smoothing": 0}, ""),
    ],
)
def test_keys_that_a_type_ignores_are_named_where_they_were_changed(
    model_type: str, changes: dict[str, object], unused: str
) -> None:
    recipe = Recipe.from_dict({"training_config": changes}).to_dict()
    assert sorted(unused_keys(recipe, model_type)) == [f"training_config.{name}" for name in unused.split()]


def test_every_key_of_the_model_and_of_its_training_is_one_that_some_type_reads() -> None:
    recipe = Recipe.from_dict(
        {
            "model_config": {"model_name": "x", "max_length": 9, "lora": {"r": 2}, "members": ["a", "b"]},
            "training_config": {"num_epochs": 9, "C": 9, "ngram_range": [1, 1], "class_weights": "balanced"},
        }
    ).to_dict()
    ignored = {name: set(unused_keys(recipe, name)) for name in ("classic", "embedding", "encoder", "lora", "ensemble")}
    assert not set.intersection(*ignored.values())
    assert ignored["lora"] == {"model_config.members", "training_config.C", "training_config.ngram_range"}
    assert ignored["ensemble"].isdisjoint({"model_config.members"})
