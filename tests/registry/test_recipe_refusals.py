"""`registry.recipe`: slips are named with file, entry, key and remedy; hostile files do no harm."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.recipe import ENTRY_KEYS, Entry, RecipeError, parse_entry, parse_file


def entry(**keys: object) -> Entry:
    return parse_entry({"name": "emotion", "type": "encoder"} | keys, where="models.yaml")


def refusal(**keys: object) -> str:
    with pytest.raises(RecipeError) as caught:
        entry(**keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
        ({"training_config": {"eval_steps": 50}}, "training_config.eval_steps: is for eval_strategy: steps"),
        ({"training_config": {"save_steps": 50, "save_strategy": "no"}}, "save_steps: is for save_strategy: steps"),
        ({"training_config": {"start_from": "scratch"}}, "training_config.start_from: expected one of base, parent"),
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


@pytest.mark.parametrize(
    ("labels", "key"),
    [({"labels": ["joy", "love|hope"]}, "labels"), ({"mapping": {"0": "love|hope"}}, "mapping")],
)
def test_labels_of_a_multi_label_classifier_hold_no_separator(labels: dict, key: str) -> None:
    assert refusal(label_config={"multi_label": True, **labels}) == (
        f"models.yaml (emotion): label_config.{key}: 'love|hope' holds '|', "
        "which joins the labels of a multi_label classifier"
    )
    assert entry(label_config=labels).labels.to_dict()[key]


def test_a_target_precision_goes_with_one_label_per_text() -> None:
    assert entry(policy={"target_precision": 0.95}).policy.target_precision == 0.95
    assert entry(label_config={"multi_label": True}).labels.multi_label
    message = refusal(label_config={"multi_label": True}, policy={"target_precision": 0.95})
    assert message.startswith("models.yaml (emotion): policy.target_precision: goes with one label per text")


# ---- what comes later ------------------------------------------------------------------------------------------------

LATER = [
    ({"kind": "generation"}, "kind: 'generation'"),
    ({"policy": {"auto_deploy": "canary"}}, "policy.auto_deploy: 'canary'"),
    ({"policy": {"rollout": {"steps": [10, 100]}}}, "policy.rollout: "),
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
        (
            {"model_config": {"use_8bit": True}},
            "model_config.use_8bit: goes with type lora only, not with encoder; set it",
        ),
        ({"model_config": {"use_8bit": "yes"}}, "use_8bit: expected true or false"),
        ({"policy": {"backup": "No Slug"}}, "policy.backup: expected a slug"),
        ({"policy": {"backup": "emotion"}}, "policy.backup: names emotion itself; name another classifier"),
        ({"policy": {"cascade": "emotion"}}, "policy.cascade: names emotion itself"),
        ({"policy": {"sarcasm": "sarcasm"}}, "policy.sarcasm: needs a backup that answers what is sarcastic"),
        ({"policy": {"sarcasm": 3, "backup": "b"}}, "policy.sarcasm: expected a slug"),
        ({"policy": {"backup": "b", "cascade": "b"}}, "policy.cascade: b is the backup already"),
        ({"policy": {"cascade": "b"}, "label_config": {"multi_label": True}}, "policy.cascade: goes with one label"),
        ({"policy": {"cache": 0}}, "policy.cache: expected a whole number from 1 to 1000000, got 0"),
        ({"policy": {"cache": "lots"}}, "policy.cache: expected a whole number"),
        ({"policy": {"rollout": {"steps": [50, 5]}}}, "policy.rollout.steps: expected rising percentages"),
        ({"type": "custom"}, "loader: is missing"),
        ({"type": "custom", "loader": "mine.models:load", "label_config": {}}, "label_config.labels: is missing"),
        ({"type": "custom", "loader": "os.system"}, "loader: expected package.module:function"),
        ({"type": "ensemble"}, "model_config.members: is missing"),
        ({"type": "ensemble", "model_config": {"members": ["a"]}}, "members: expected a list of 2 to 20 items"),
        ({"type": "ensemble", "model_config": {"members": ["a", "a"]}}, "members: 'a' is listed twice"),
        ({"type": "ensemble", "model_config": {"members": ["a", "emotion"]}}, "members: names emotion itself"),
        ({"model_config": {"members": ["a", "b"]}}, "model_config.members: goes with type ensemble only"),
        ({"loader": "mine.models:load"}, "loader: goes with type classic or custom only"),
    ],
)
def test_a_disabled_entry_is_checked_as_strictly(keys: dict, message: str) -> None:
    assert message in refusal(**keys, enabled=False)


@pytest.mark.parametrize(("cache", "texts"), [(False, 0), (True, 10_000), (1, 1), (500, 500)])
def test_a_cache_is_a_number_of_texts_or_simply_wanted(cache: bool | int, texts: int) -> None:
    policy = entry(policy={"cache": cache}).policy
    assert policy.cached_texts == texts
    assert policy.to_dict()["cache"] is cache or policy.to_dict()["cache"] == cache


def test_the_defaults_of_later_features_may_be_written_out() -> None:
    entry(policy={"cache": False, "auto_deploy": "full"}, model_config={"members": []})


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
VALID = parse_entry({"name": "a", "type": "encoder", "label_config": {"labels": ["x", "y"]}}, where="f").to_dict()
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
