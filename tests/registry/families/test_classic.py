"""The classic family: features rebuilt to the last bit, weights that count, answers in microseconds."""

import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry import families
from registry.families.base import Example, FamilyError, balanced_weights
from registry.families.features import FieldFeatures, read_features
from registry.families.terms import terms_of
from registry.labels import label_text_of
from tests.registry.families.material import LABELS, Built, build, sentences

Builder = Callable[..., Built]


def test_a_single_row_equals_what_the_vectorisers_give(built: Builder) -> None:
    features, _, _ = read_features(built("classic")[0] / "serving")
    for text in ("I saw apple apple plum", "", "unknown", "هنا rain"):
        dense = np.zeros(features.columns, dtype=np.float32)
        columns, values = features.row([text])
        dense[columns] = values
        np.testing.assert_allclose(dense, features.transform([[text]]).toarray()[0], atol=1e-6)


@pytest.mark.parametrize("ngram_range", [[1, 1], [1, 2], [2, 3], [3, 5]])
@pytest.mark.parametrize("analyzer", ["word", "char_wb"])
@given(text=st.text(max_size=60) | st.text(alphabet="ab \t\u3000\x1c\u0130ßا😀.-", max_size=40))
@example("I saw  apple apple plum\n\n a it's")
@example("هنا rain, İstanbul")
def test_terms_are_those_of_scikit_learn_in_its_order(analyzer: str, ngram_range: list[int], text: str) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    options = {"analyzer": analyzer, "ngram_range": ngram_range, "token_pattern": r"(?u)\b\w\w+\b"}
    theirs = TfidfVectorizer(**(options | {"ngram_range": tuple(ngram_range)})).build_analyzer()
    assert terms_of(options)(text) == theirs(text)


def test_a_package_can_be_rebuilt_with_scikit_learn_alone(built: Builder) -> None:
    from safetensors.numpy import load_file
    from sklearn.feature_extraction.text import TfidfVectorizer

    package = built("classic")[0] / "package"
    described = json.loads((package / "features.json").read_text(encoding="utf-8"))
    arrays = load_file(str(package / "model.safetensors"))
    scores, start = arrays["intercepts"], 0
    for block in described["blocks"]:
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in block["options"].items()}
        vectoriser = TfidfVectorizer(vocabulary=block["terms"], **options)
        end = start + len(block["terms"])
        vectoriser.idf_ = arrays["idf"][start:end]
        scores = scores + (vectoriser.transform(["we like banana"]) @ arrays["coefficients"][start:end])[0]
        start = end
    answer = families.load(built("classic")[0]).predict([("we like banana",)])[0]
    assert described["labels"][int(scores.argmax())] == "fruit"
    assert int(answer.probabilities.argmax()) == int(scores.argmax())


def test_two_labels_are_answered_as_well_as_many(tmp_path: Path) -> None:
    train = [example for example in sentences(120, seed=1) if example.label != "weather"]
    valid = [example for example in sentences(40, seed=2) if example.label != "weather"]
    folder = build("classic", tmp_path, labels=("fruit", "vehicle"), train=train, valid=valid)[0]
    first, second = families.load(folder).predict([("a mango",), ("a tractor",)])
    assert first.probabilities[0] > 0.8
    assert second.probabilities[1] > 0.8


def test_a_heavier_example_counts_more(tmp_path: Path) -> None:
    train = sentences(120, seed=1)

    def fruitiness(weight: float, folder: Path) -> float:
        corrected = Example(("quince quince",), "fruit", weight=weight)
        opposed = Example(("quince quince",), "vehicle")
        built = build("classic", folder, train=[*train, corrected, opposed])[0]
        return float(families.load(built).predict([("quince quince",)])[0].probabilities[0])

    assert fruitiness(3.0, tmp_path / "heavy") > fruitiness(1.0, tmp_path / "light") + 0.1


def test_the_keys_of_the_family_do_what_they_say(tmp_path: Path) -> None:
    def made(name: str, *assignments: str) -> tuple[FieldFeatures, np.ndarray]:
        features, coefficients, _ = read_features(build("classic", tmp_path / name, *assignments)[0] / "serving")
        return features, coefficients

    usual, weak = made("usual", "training_config.C=5")[1], made("weak", "training_config.C=0.01")[1]
    assert np.abs(weak).max() < 0.3 * np.abs(usual).max()  # held nearer to 0

    features, _ = made("few", "training_config.max_features=100")
    assert [len(block.terms) for block in features.blocks] == [100, 100]  # of words, and of their parts
    for low, high in ((1, 1), (2, 3)):
        features, _ = made(f"{low}-{high}", f"training_config.ngram_range=[{low}, {high}]")
        words = next(block for block in features.blocks if block.options["analyzer"] == "word")
        assert {len(term.split()) for term in words.terms} == set(range(low, high + 1))


def test_balanced_weights_give_every_label_the_same_share() -> None:
    truth = np.array([0] * 8 + [1] * 2)
    weights = balanced_weights(truth, labels=3)
    np.testing.assert_allclose(weights, [0.625, 2.5, 0.0])
    assert weights[truth].mean() == pytest.approx(1)


def test_balanced_classes_lift_a_rare_label(tmp_path: Path) -> None:
    rare = [example for example in sentences(300, seed=1) if example.label != "weather"]
    rare += [Example(("it is snow",), "weather"), Example(("we like snow",), "weather")]
    plain = families.load(build("classic", tmp_path / "plain", train=rare)[0])
    lifted = families.load(
        build("classic", tmp_path / "lifted", "training_config.class_weights=balanced", train=rare)[0]
    )
    asked = [("there was snow",)]
    assert lifted.predict(asked)[0].probabilities[2] > plain.predict(asked)[0].probabilities[2]


def test_texts_without_a_single_word_are_refused(tmp_path: Path) -> None:
    train = [Example(("",), "fruit"), Example((" ",), "vehicle")]
    with pytest.raises(FamilyError, match="no words at all"):
        build("classic", tmp_path, train=train, valid=[])


def test_vocabulary_and_weights_that_do_not_belong_together_are_refused(built: Builder, tmp_path: Path) -> None:
    serving = built("classic")[0] / "serving"
    described = json.loads((serving / "features.json").read_text(encoding="utf-8"))
    described["blocks"][0]["terms"].pop()
    (tmp_path / "features.json").write_text(json.dumps(described), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes((serving / "model.safetensors").read_bytes())
    with pytest.raises(FamilyError, match="do not belong together"):
        read_features(tmp_path)


@pytest.mark.clock
def test_a_short_text_takes_well_under_a_millisecond(built: Builder) -> None:
    predictor = families.load(built("classic")[0])
    inputs = [example.fields for example in sentences(300, seed=9)]
    predictor.predict(inputs)
    took = []
    for fields in inputs:
        start = time.perf_counter()
        predictor.predict([fields])
        took.append(time.perf_counter() - start)
    assert sorted(took)[len(took) // 2] < 0.001


def test_several_labels_of_a_text_are_learnt_apart(tmp_path: Path) -> None:
    plain = sentences(600, seed=11)
    pairs = [
        Example((f"{one.fields[0]} and {other.fields[0]}",), label_text_of({one.label, other.label}, LABELS))
        for one, other in itertools.pairwise(plain[:301])
    ]
    nothing = [Example((f"nobody said {number}",), "|") for number in range(60)]
    examples = [*plain[300:], *pairs, *nothing]
    random.Random(5).shuffle(examples)
    folder, _, result = build("classic", tmp_path, train=examples[120:], valid=examples[:120], multi_label=True)
    assert result.calibration["multi_label"]
    assert set(result.calibration["thresholds"]) == set(LABELS)
    predictor = families.load(folder)
    assert predictor.calibration.multi_label
    thresholds = np.array([predictor.calibration.thresholds[label] for label in LABELS])
    answers = predictor.predict([("an apple and a car",), ("the storm",), ("nobody said 7",)])
    given = [{LABELS[index] for index in np.flatnonzero(answer.probabilities >= thresholds)} for answer in answers]
    assert given == [{"fruit", "vehicle"}, {"weather"}, set()]
