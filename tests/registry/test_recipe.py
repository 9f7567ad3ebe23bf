"""`registry.recipe`: what `models.yaml` may say, and how a slip in it is reported."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.recipe import (
    ENTRY_KEYS,
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


def test_the_shipped_file_serves_the_five_demo_classifiers_emotion_first(shipped: dict[str, Entry]) -> None:
    served = [route for route, each in shipped.items() if each.enabled]
    assert served == ["emotion", "intent", "sentiment", "moderation", "clarity"]
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


# ---- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"traning_config": {}}, "traning_config: unknown key; did you mean training_config?"),
        ({"training_config": {"num_epoch": 2}}, "training_config.num_epoch: unknown key; did you mean num_epochs?"),
        ({"policy": {"gate": {"maxdrop": 1}}}, "policy.gate.maxdrop: unknown key; did you mean max_drop?"),
        ({"model_config": {"lora": {"zzz": 1}}}, "model_config.lora.zzz: unknown key; the keys here are r, lora_alpha"),
        ({"is_default": True}, "is_default: unknown key; the keys here are name, type"),
        ({"training_config": {"num_epochs": 0}}, "num_epochs: expected a whole number from 1 to 1000, got 0"),
        ({"training_config": {"num_epochs": True}}, "num_epochs: expected a whole number"),
        ({"training_config": {"num_epochs": "three"}}, "got 'three'"),
        ({"training_config": {"num_epochs": 2.5}}, "num_epochs: expected a whole number"),
        ({"training_config": {"learning_rate": 0}}, "learning_rate: expected a number from 1e-08 to 1, got 0"),
        ({"training_config": {"learning_rate": float("nan")}}, "learning_rate: expected a number"),
        ({"training_config": {"learning_rate": "fast"}}, "learning_rate: expected a number"),
        ({"training_config": {"device": "tpu"}}, "device: expected one of auto, cpu, cuda, mps, got 'tpu'"),
        ({"training_config": {"device": False}}, "device: expected one of"),
        ({"training_config": {"ngram_range": [3, 1]}}, "ngram_range: expected the smaller number first"),
        ({"training_config": {"ngram_range": 2}}, "ngram_range: expected two whole numbers"),
        ({"training_config": {"early_stopping_patience": 2, "eval_strategy": "no"}}, "patience: needs evaluations"),
        ({"training_config": []}, "training_config: expected keys with values, got []"),
        ({"model_config": "minilm"}, "model_config: expected keys with values, got 'minilm'"),
        ({"model_config": {"model_name": ""}}, "model_name: expected one line of 1 to 500 characters"),
        ({"model_config": {"max_length": 100_000}}, "max_length: expected a whole number from 8 to 8192"),
        ({"model_config": {"lora": {"target_modules": []}}}, "target_modules: expected a list of 1 to 100 items"),
        ({"label_config": {"labels": ["joy"]}}, "label_config.labels: expected a list of 2 to 1000 items"),
        ({"label_config": {"labels": ["joy", "joy"]}}, "labels: 'joy' is listed twice"),
        ({"label_config": {"labels": ["yes", False]}}, "labels.1: expected text, got False; put it in quotes"),
        ({"label_config": {"labels": ["a", "b\nc"]}}, "labels.1: expected one line"),
        ({"label_config": {"labels": ["a", "b\u202e"]}}, "labels.1: expected one line"),
        ({"label_config": {"labels": ["a", "b"], "mapping": {"x": "c"}}}, "mapping.x: 'c' is not among the labels"),
        ({"label_config": {"labels": ["a", "b"], "mapping": {"a": "b"}}}, "mapping.a: a label of the classifier"),
        (
            {"label_config": {"labels": ["a", "b"], "descriptions": {"c": "x"}}},
            "descriptions.c: is not among the labels",
        ),
        ({"data_config": {"question_field": "q"}}, "question_field and context_field are given together"),
        ({"data_config": {"text_field": "t", "question_field": "q", "context_field": "c"}}, "text_field: give either"),
        ({"data_config": {"question_field": "q", "context_field": "q"}}, "context_field: 'q' is the question's"),
        ({"data_config": {"text_field": "items"}}, "text_field: 'items' is taken by a key of every request"),
        ({"data_config": {"label_field": "text"}}, "label_field: 'text' is taken"),
        ({"data_config": {"label_field": "scores"}}, "label_field: 'scores' is taken"),
        ({"data_config": {"replay_share": 1}}, "replay_share: expected a number from 0 to 0.9"),
        ({"policy": {"confidence_floor": 50}}, "confidence_floor: expected a number from 0 to 1, got 50"),
        ({"policy": {"review": {"approve": "agree:1"}}}, "policy.review.approve: expected auto, manual or agree:N"),
        ({"policy": {"review": {"min_rating": 6}}}, "policy.review.min_rating: expected a whole number from 1 to 5"),
        ({"tensorboard_config": {"port": 80}}, "tensorboard_config.port: expected a whole number from 1024"),
        ({"enabled": "yes"}, "enabled: expected true or false, got 'yes'"),
        ({"type": "transformer"}, "type: expected one of classic, embedding, encoder"),
        ({"type": None}, "type: is missing"),
        ({"kind": "regression"}, "kind: expected one of classification, generation"),
        ({"description": "a\x00b"}, "description: expected one line"),
        ({"loader": "os:system"}, "loader: "),
    ],
)
def test_a_slip_is_named_with_file_entry_key_and_remedy(keys: dict, message: str) -> None:
    text = refusal(**keys)
    assert text.startswith("models.yaml (emotion): ")
    assert message in text


def test_a_number_of_labels_that_contradicts_the_list_states_both() -> None:
    message = refusal(model_config={"num_labels": 3}, label_config={"labels": ["a", "b"]})
    assert "model_config.num_labels: is 3, but label_config.labels lists 2" in message
    assert entry(model_config={"num_labels": 3}).recipe.model.num_labels == 3


def test_a_missing_name_is_reported_by_the_entry_s_number() -> None:
    with pytest.raises(RecipeError, match=r"^models\.yaml, entry 2: name: is missing$"):
        parse_file("[{name: a, type: classic}, {type: classic}]", where="models.yaml")


@pytest.mark.parametrize("raw", [None, "emotion", ["emotion"], 3])
def test_an_entry_that_is_no_mapping_is_refused(raw: object) -> None:
    with pytest.raises(RecipeError, match="entry 1: "):
        parse_file(json.dumps([raw]), where="f")


@pytest.mark.parametrize("second", ["{name: a, route: b, type: classic}", "{name: b, route: a, type: classic}"])
def test_two_entries_cannot_share_a_name_or_a_route(second: str) -> None:
    with pytest.raises(RecipeError, match=r"entry 2 .*: 'a' is entry 1's already"):
        parse_file(f"[{{name: a, type: classic}}, {second}]", where="f")


# ---- what comes later ------------------------------------------------------------------------------------------------

LATER = [
    ({"type": "embedding"}, "type: 'embedding'"),
    ({"type": "lora"}, "type: 'lora'"),
    ({"type": "ensemble", "model_config": {"members": ["a", "b"]}}, "type: 'ensemble'"),
    ({"type": "custom", "loader": "mine.models:load"}, "type: 'custom'"),
    ({"type": "classic", "loader": "mine.models:load"}, "loader: 'mine.models:load'"),
    ({"kind": "generation"}, "kind: 'generation'"),
    ({"model_config": {"use_8bit": True}}, "model_config.use_8bit: True"),
    ({"model_config": {"members": ["a", "b"]}}, "model_config.members: ('a', 'b')"),
    ({"training_config": {"num_processes": 2}}, "training_config.num_processes: 2"),
    ({"training_config": {"eval_strategy": "steps"}}, "training_config.eval_strategy: 'steps'"),
    ({"label_config": {"multi_label": True}}, "label_config.multi_label: True"),
    ({"policy": {"target_precision": 0.95}}, "policy.target_precision: 0.95"),
    ({"policy": {"backup": "sentiment"}}, "policy.backup: 'sentiment'"),
    ({"policy": {"cascade": "sentiment"}}, "policy.cascade: 'sentiment'"),
    ({"policy": {"cache": True}}, "policy.cache: True"),
    ({"policy": {"auto_deploy": "canary"}}, "policy.auto_deploy: 'canary'"),
    ({"policy": {"rollout": {"steps": [10, 100]}}}, "policy.rollout: "),
    ({"tensorboard_config": {"auto_start": True}}, "tensorboard_config.auto_start: True"),
]


@pytest.mark.parametrize(("keys", "what"), LATER)
def test_what_is_not_built_yet_is_refused_in_an_enabled_entry_only(keys: dict, what: str) -> None:
    message = refusal(**keys)
    assert message.startswith(f"models.yaml (emotion): {what}")
    assert message.endswith("is not available yet")
    assert not entry(**keys, enabled=False).enabled


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_config": {"use_8bit": "yes"}}, "use_8bit: expected true or false"),
        ({"policy": {"backup": "No Slug"}}, "policy.backup: expected a slug"),
        ({"policy": {"rollout": {"steps": [50, 5]}}}, "policy.rollout.steps: expected rising percentages"),
        ({"type": "custom"}, "loader: is missing"),
        ({"type": "custom", "loader": "os.system"}, "loader: expected package.module:function"),
        ({"type": "ensemble"}, "model_config.members: is missing"),
        ({"loader": "mine.models:load"}, "loader: goes with type classic or custom only"),
    ],
)
def test_a_disabled_entry_is_checked_as_strictly(keys: dict, message: str) -> None:
    assert message in refusal(**keys, enabled=False)


def test_the_defaults_of_later_features_may_be_written_out() -> None:
    entry(policy={"cache": False, "auto_deploy": "full"}, model_config={"use_8bit": False, "members": []})


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
        ("model_config.use_8bit=true", "--set: model_config.use_8bit: True is not available yet"),
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
    assert Policy.from_dict({"cache": True}).cache
    with pytest.raises(RecipeError, match=r"policy: cache: True is not available yet"):
        Policy.from_dict({"cache": True}, where="policy", allow_later=False)


def test_defaults_are_not_shared_between_sections() -> None:
    LabelConfig().mapping["x"] = "y"
    assert LabelConfig().mapping == {}


def test_sections_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        TrainingConfig().num_epochs = 9  # type: ignore[misc]
    assert DataConfig(text_field="review").input_fields == ("review",)


# ---- hostile files ---------------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "source",
    [
        "!!python/object/apply:os.system ['touch canary']",
        "- !!python/name:os.system",
        "- !!python/object:registry.recipe.Recipe {}",
        BOMB,
        "a: &a [*a]",
        "&a [*a]",
        "[" * 30 + "]" * 30,
        "[" * 100_000,
        "{" * 100_000,
        "? " * 50_000,
        "- " * 50_000 + "x",
        "x" * 300_000,
        "a: 1\n---\nb: 2",
        "[{name: a, type: classic, type: encoder}]",
        "[{name: a, type: classic, training_config: {seed: 1, seed: 2}}]",
        "!!int ''",
        "!!bool maybe",
        "!!float '_'",
        "!!timestamp x",
        "2020-99-99",
        "9" * 5000,
        "[{name: a, type: classic, training_config: {seed: 0x" + "f" * 9000 + "}}]",
        "!!binary 'x'",
        "? [a, b]\n: c",
        "{? {a: b} : c}",
        "*unknown",
        "\x00",
        "\ud800",
        '"\\ud800": 1',
        '[{name: "\\ud800", type: classic}]',
        '[{"\\ud800": 1}]',
        '{"\\ud800": 1, "\\ud800": 2}',
        "<<: [1, 2]",
        "models: {}",
        "models: []\nmodel: []",
        "%YAML 9.9\n---\n[]",
    ],
)
def test_a_hostile_file_is_refused_in_one_line(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        parse_file(source, where="models.yaml")
    message = str(caught.value)
    assert message.startswith("models.yaml")
    assert "\n" not in message
    assert len(message) < 600
    message.encode("utf-8")
    assert list(tmp_path.iterdir()) == []


def test_anchors_and_merges_are_fine_in_reason() -> None:
    source = """
    - {name: a, type: classic, training_config: &shared {seed: 7, num_epochs: 2}}
    - {name: b, type: classic, training_config: {<<: *shared, num_epochs: 4}}
    - {name: c, type: classic, training_config: *shared}
    """
    trainings = [each.recipe.training for each in parse_file(source, where="f")]
    assert [(each.seed, each.num_epochs) for each in trainings] == [(7, 2), (7, 4), (7, 2)]


def test_a_syntax_error_is_located() -> None:
    with pytest.raises(RecipeError, match=r"^models\.yaml: line 2, column \d+: "):
        parse_file("- name: a\n  type: [", where="models.yaml")


YAML_PARTS = [*"-:{}[]&*!?|>'\"#%@,. \n\tab<0x1e_~", "name", "type", "!!", "<<: ", "- name: a\n  type: classic\n"]
YAML_TEXT = st.lists(st.sampled_from(YAML_PARTS), max_size=40).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
KEYS = st.sampled_from(ENTRY_KEYS) | st.text(max_size=8) | st.integers() | st.none()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
VALID = parse_file(CLARITY, where="f")[0].to_dict()
PATHS = [(key,) for key in VALID] + [
    (section, key) for section, value in VALID.items() if isinstance(value, dict) for key in value
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | YAML_TEXT)
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        parse_file(source, where="f")
    except RecipeError as error:
        assert str(error).startswith("f")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PATHS), VALUES, st.booleans())
def test_any_value_in_any_place_is_read_or_refused(path: tuple[str, ...], value: object, enabled: bool) -> None:
    raw = json.loads(json.dumps(VALID)) | {"enabled": enabled}
    target = raw if len(path) == 1 else raw[path[0]]
    target[path[-1]] = value
    try:
        read = parse_entry(raw, where="f")
    except RecipeError as error:
        assert str(error).startswith("f (") or path == ("name",)
        return
    assert parse_entry(json.loads(json.dumps(read.to_dict(), allow_nan=False)), where="f") == read
