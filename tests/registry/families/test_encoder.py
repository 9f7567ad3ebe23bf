"""The encoder family: what fine-tuning, checkpoints and conversion promise, on a tiny random BERT."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerControl, TrainerState

from registry import families
from registry.calibration import Calibration
from registry.families import agreement, devices, export, learner, watch
from registry.families.base import Example, FamilyError, FitRequest, FitResult, Stopped
from registry.families.batching import LengthGroupedBatches
from registry.families.checkpoints import Checkpoints
from registry.families.onnx_predictor import INT8_NAME, THREADS_VARIABLE, Graph
from registry.families.watch import Watch
from registry.recipe import TrainingConfig
from registry.text import prepare
from tests.registry.families.material import LABELS, Built, Listener, build, request_for, sentences, settings_of
from tests.registry.families.tuning import Crash, Crasher

Builder = Callable[..., Built]
encoder = families.family("encoder")


# ---- the package -----------------------------------------------------------------------------------------------------


def test_the_package_loads_with_plain_transformers_and_answers_alike(built: Builder) -> None:
    folder = built("encoder")[0]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "package").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "package")
    assert model.config.id2label == dict(enumerate(LABELS))
    predictor = families.load(folder)
    for example in sentences(20, seed=11):
        tokens = tokenizer(prepare(example.fields[0]), truncation=True, return_tensors="pt")
        with torch.inference_mode():
            expected = int(model(**tokens).logits.argmax())
        assert int(predictor.predict([example.fields])[0].probabilities.argmax()) == expected


def test_the_package_holds_what_users_of_transformers_look_for(built: Builder) -> None:
    package = built("encoder")[0] / "package"
    wanted = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"vocab.txt", "special_tokens_map.json"} <= {path.name for path in package.iterdir()}


def test_the_base_and_the_counts_are_told(built: Builder, tiny_encoder: Path) -> None:
    _, _, result = built("encoder")
    assert result.base_model is not None
    assert result.base_model["id"] == str(tiny_encoder)
    embeddings = load_file(tiny_encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert result.parameters["total"] - result.parameters["trainable"] == embeddings.numel()
    assert 0.05 < result.calibration["temperature"] < 20


def test_a_truncated_text_says_so(built: Builder) -> None:
    short, long = families.load(built("encoder")[0]).predict([("we like apple",), ("apple " * 200,)])
    assert not short.truncated
    assert long.truncated


def test_code_named_by_a_base_model_is_neither_run_nor_passed_on(tiny_encoder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
    folder = build("encoder", tmp_path / "run", *settings_of("encoder", base), "training_config.num_epochs=1")[0]
    assert "auto_map" not in (folder / "package" / "config.json").read_text(encoding="utf-8")


# ---- what cannot be trained ------------------------------------------------------------------------------------------


def test_a_model_that_reads_no_text_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    (base / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
    with pytest.raises(FamilyError, match="not a text encoder that can be fine-tuned") as caught:
        encoder.fit(request_for(tmp_path, *settings_of("encoder", base)))
    assert "\n" not in str(caught.value)


def test_a_maximum_length_beyond_the_models_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    settings = (*settings_of("encoder", tiny_encoder), "model_config.max_length=65")
    with pytest.raises(FamilyError, match=r"at most 64 tokens; set model_config\.max_length"):
        encoder.fit(request_for(tmp_path, *settings))


def test_a_loss_that_is_not_a_number_ends_the_run_and_saves_nothing(tiny_encoder: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_encoder, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    request = request_for(tmp_path, *settings_of("encoder", base))
    with pytest.raises(FamilyError, match=r"not a number at step \d+; lower training_config\.learning_rate"):
        encoder.fit(request)
    assert list(request.checkpoints.glob("checkpoint-*")) == []


def test_three_fields_are_too_many_for_an_encoder(tiny_encoder: Path, tmp_path: Path) -> None:
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder), input_fields=("a", "b", "c"))
    with pytest.raises(FamilyError, match="classic family for more"):
        encoder.fit(request)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(FamilyError, match="cannot train on cuda"):
        devices.choose_device("cuda")
    assert devices.choose_device("auto") == "cpu"
    monkeypatch.setenv("KALIMTAK_DEVICE", "cuda")
    with pytest.raises(FamilyError, match="cannot train on cuda"):
        devices.choose_device("auto")


@pytest.mark.parametrize(
    ("wanted", "able", "precision"),
    [
        ("auto", {"avx512_bf16": True}, "bf16"),
        ("auto", {}, "fp32"),
        ("no", {"amx_bf16": True}, "fp32"),
        ("bf16", {}, "bf16"),
    ],
)
def test_precision_follows_what_the_processor_computes_in(
    wanted: str, able: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert devices.choose_precision(wanted, "cpu") == precision


def test_half_precision_without_cuda_is_refused() -> None:
    with pytest.raises(FamilyError, match="needs a CUDA device"):
        devices.choose_precision("fp16", "cpu")


# ---- the schedule and the batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("updates", "expected", "told"), [(1500, 100, False), (150, 15, True), (3, 1, True)])
def test_a_warm_up_longer_than_a_tenth_of_the_run_is_shortened(updates: int, expected: int, told: bool) -> None:
    notes: list[str] = []
    assert learner.warmup_of(TrainingConfig(), updates, notes) == expected
    assert bool(notes) == told


def test_a_warm_up_ratio_is_taken_at_its_word() -> None:
    assert learner.warmup_of(TrainingConfig(warmup_steps=0, warmup_ratio=0.5), 150, []) == 75


def test_batches_hold_every_text_once_in_an_order_of_the_epoch() -> None:
    lengths = [index % 37 + 3 for index in range(1000)]
    batches = LengthGroupedBatches(lengths, batch_size=16, seed=5)
    first = list(batches)
    assert len(first) == len(batches)
    assert sorted(index for batch in first for index in batch) == list(range(1000))
    assert list(batches) == first
    batches.set_epoch(1)
    assert list(batches) != first


def test_batches_pad_little() -> None:
    lengths = [index * 7919 % 60 + 4 for index in range(2000)]
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in LengthGroupedBatches(lengths, 32, 0))
    assert padded < 1.06 * sum(lengths)


def test_heavier_examples_weigh_more_in_the_loss(tmp_path: Path, tiny_encoder: Path) -> None:
    contradicted = [Example(("mango",), "vehicle"), Example(("mango",), "weather", weight=30.0)] * 4
    train = [*sentences(60, seed=1), *contradicted]
    folder = build("encoder", tmp_path, *settings_of("encoder", tiny_encoder), train=train)[0]
    assert int(families.load(folder).predict([("mango",)])[0].probabilities.argmax()) == LABELS.index("weather")


# ---- stopping and going on -------------------------------------------------------------------------------------------


@pytest.fixture
def unconverted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fits that end with the package: what follows is tested elsewhere and takes seconds."""
    served = export.Served(Calibration(), ())
    monkeypatch.setattr(export, "export_serving", lambda request, start: served)
    yield


@pytest.mark.usefixtures("unconverted")
@pytest.mark.parametrize(
    ("reporter", "ends"),
    [(Listener(stop_after=8), Stopped), (Crasher(stop_after=25), Crash)],
    ids=["stopped", "killed"],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    reporter: Listener, ends: type[Exception], tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CHECKPOINT_GAP", 0.0)
    settings = (
        *settings_of("encoder", tiny_encoder),
        "training_config.num_epochs=3",
        "training_config.gradient_accumulation_steps=2",
        "training_config.mixed_precision=no",
    )
    whole, whole_weights = fit(request_for(tmp_path / "whole", *settings))
    with pytest.raises(ends):
        fit(request_for(tmp_path / "parts", *settings, reporter=reporter))
    resumed, resumed_weights = fit(request_for(tmp_path / "parts", *settings, resume=True))

    assert any(note.startswith("Resumed from checkpoint-") for note in resumed.notes)
    evaluated = [[line["eval_loss"] for line in each.history if "eval_loss" in line] for each in (whole, resumed)]
    np.testing.assert_allclose(evaluated[0], evaluated[1], atol=1e-4)
    for name, value in whole_weights.items():
        torch.testing.assert_close(resumed_weights[name], value, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unconverted")
def test_without_resume_a_run_starts_anew(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = settings_of("encoder", tiny_encoder)
    with pytest.raises(Stopped):
        fit(request_for(tmp_path, *settings, reporter=Listener(stop_after=5)))
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-6"]
    again, _ = fit(request_for(tmp_path, *settings))
    assert not any("Resumed" in note for note in again.notes)


@pytest.mark.usefixtures("unconverted")
def test_checkpoints_of_other_data_are_not_resumed(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = settings_of("encoder", tiny_encoder)
    with pytest.raises(Stopped):
        fit(request_for(tmp_path, *settings, reporter=Listener(stop_after=5)))
    other_data = {"resume": True, "train": sentences(90, seed=12)}
    with pytest.raises(Stopped):
        fit(request_for(tmp_path, *settings, **other_data, reporter=Listener(stop_after=2)))
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-3"]
    other, _ = fit(request_for(tmp_path, *settings, **other_data))
    assert "Resumed from checkpoint-3." in other.notes


def fit(request: FitRequest) -> tuple[FitResult, dict[str, torch.Tensor]]:
    result = encoder.fit(request)
    return result, load_file(request.out / "package" / "model.safetensors")


def test_early_stopping_goes_back_to_the_best_weights(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    watching = Watch(Listener(), Checkpoints(tmp_path, "run"), TrainingConfig(early_stopping_patience=2))
    state, control = TrainerState(), TrainerControl()

    def evaluate(macro_f1: float, weight: float) -> None:
        torch.nn.init.constant_(model.weight, weight)
        metrics = {"eval_loss": 1.0, "eval_accuracy": macro_f1, "eval_macro_f1": macro_f1}
        state.log_history.append(metrics)
        arguments: Any = None
        watching.on_evaluate(arguments, state, control, metrics=metrics, model=model)

    evaluate(0.5, weight=1.0)
    evaluate(0.7, weight=2.0)
    evaluate(0.6, weight=3.0)
    assert not control.should_training_stop
    evaluate(0.7, weight=4.0)
    assert control.should_training_stop
    assert watching.restore_best(model, state) == 2
    assert model.weight[0, 0] == 2.0


# ---- conversion ------------------------------------------------------------------------------------------------------


def test_an_int8_graph_that_answers_otherwise_is_not_kept(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "MIN_AGREEMENT", 1.1)
    folder, _, result = build("encoder", tmp_path, *settings_of("encoder", tiny_encoder))
    assert sorted(path.name for path in (folder / "serving").iterdir()) == ["model.onnx", "tokenizer.json"]
    assert any(note.startswith("fp32 answers, int8 is not as good") for note in result.notes)
    assert families.load(folder).predict([("we like apple",)])[0].probabilities.argmax() == 0


def test_where_static_scales_answer_otherwise_those_of_each_text_are_tried(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter([agreement.Verdict(False, "not as good"), agreement.Verdict(True, "as good")])
    monkeypatch.setattr(export, "judge_int8", lambda *_: next(verdicts))
    folder, _, result = build("encoder", tmp_path, *settings_of("encoder", tiny_encoder))
    assert {"as good", export.DYNAMIC} <= set(result.notes)
    assert not Graph(folder / "serving" / INT8_NAME).has_static_scales
    assert families.load(folder).predict([("we like apple",)])[0].probabilities.argmax() == 0


def test_more_threads_do_not_change_an_answer(built: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built("encoder")[0]
    one = families.load(folder).predict([("the tractor",)])[0].probabilities
    monkeypatch.setenv(THREADS_VARIABLE, "2")
    np.testing.assert_allclose(families.load(folder).predict([("the tractor",)])[0].probabilities, one, atol=1e-6)
    monkeypatch.setenv(THREADS_VARIABLE, "many")
    with pytest.raises(FamilyError, match=THREADS_VARIABLE):
        families.load(folder)


@pytest.mark.slow
def test_minilm_learns_from_few_texts_and_answers_in_int8(tmp_path: Path) -> None:
    train, valid = sentences(360, seed=1), sentences(90, seed=2)
    folder, _, result = build("encoder", tmp_path, train=train, valid=valid)
    assert any(note.startswith("int8 answers") for note in result.notes)
    unseen = [("a pear from the orchard",), ("the bus was late",), ("thunder and lightning tonight",)]
    answers = families.load(folder).predict(unseen)
    assert [LABELS[int(answer.probabilities.argmax())] for answer in answers] == list(LABELS)
