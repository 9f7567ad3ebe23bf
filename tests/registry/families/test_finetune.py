"""Fine-tuning: losses, several labels, strategies, memory, going on after a stop. On a tiny random BERT."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from registry.families import devices, watch
from registry.families.base import Example, FamilyError, Stopped
from registry.families.batching import Collator, Item, Items, LengthGroupedBatches, Shares
from registry.families.learner import cadence, losses_of
from registry.families.memory import is_out_of_memory
from registry.families.tokenisation import Tokens
from registry.labels import label_text
from registry.recipe import TrainingConfig
from tests.registry.families.material import LABELS, Listener, request_for, sentences, settings_of
from tests.registry.families.tuning import Crash, Crasher, Greedy, logits_of, losses, tune

PLAIN = ("training_config.mixed_precision=no", "training_config.num_epochs=2")


def several_labels(count: int, seed: int) -> list[Example]:
    """Texts that tell of none, some or all of the subjects."""
    chooser = random.Random(seed)
    told = {label: [each for each in sentences(90, seed=9) if each.label == label] for label in LABELS}
    examples = []
    for _ in range(count):
        shown = [label for label in LABELS if chooser.random() < 0.5]
        text = " and ".join(chooser.choice(told[label]).fields[0] for label in shown) or "they say it is"
        examples.append(Example((text,), label_text(shown)))
    return examples


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_the_loss_of_one_label_is_transformers_own() -> None:
    logits, truth = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    expected = torch.nn.functional.cross_entropy(logits, truth, label_smoothing=0.1)
    torch.testing.assert_close(losses_of(logits, truth, multi_label=False, smoothing=0.1).mean(), expected)


def test_smoothing_gives_yes_and_no_of_each_label_the_same_share() -> None:
    logits, truth = torch.randn(4, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    # A label on its own is a choice between two answers, of which the second one's logit is 0.
    pairs = torch.stack([torch.zeros_like(logits), logits], dim=-1).reshape(-1, 2)
    expected = torch.nn.functional.cross_entropy(
        pairs, truth.long().reshape(-1), label_smoothing=0.2, reduction="none"
    ).reshape(4, 3)
    told = losses_of(logits, truth, multi_label=True, smoothing=0.2)
    torch.testing.assert_close(told, expected.mean(dim=1))


def test_a_positive_weight_counts_every_yes_so_many_times() -> None:
    logits, truth = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    told = losses_of(logits, truth, multi_label=True, positive=torch.tensor([3.0, 7.0]))
    assert float(told[0]) == pytest.approx((3 + 1) / 2 * np.log(2))


# ---- several labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_several_labels_are_learnt_independently(weights: str, tmp_path: Path, tiny_encoder: Path) -> None:
    listener = Listener()
    request = request_for(
        tmp_path,
        *settings_of("encoder", tiny_encoder),
        f"training_config.class_weights={weights}",
        multi_label=True,
        train=several_labels(300, seed=1),
        valid=several_labels(60, seed=2),
        reporter=listener,
    )
    tuned = tune(request)
    evaluated = [line for line in tuned.history if "eval_loss" in line]
    assert evaluated[-1]["eval_micro_f1"] > 0.9
    assert [figures for figures in listener.figures if "eval_macro_f1" in figures]
    config = json.loads((request.out / "package" / "config.json").read_text(encoding="utf-8"))
    assert config["problem_type"] == "multi_label_classification"
    both, neither = logits_of(request.out / "package", [("i saw apple and there was rain",), ("they say it is",)])
    assert (both > 0).tolist() == [True, False, True]
    assert (neither < 0).all()


def test_truths_are_collated_as_indices_or_as_rows() -> None:
    tokens = Tokens(np.array([1, 2]), np.zeros(2, dtype=np.int64), truncated=False)
    one = Collator(0, types=False, most=128)([Item(tokens, 2), Item(tokens, 0)])["truth"]
    assert (one.dtype, one.tolist()) == (torch.int64, [2, 0])
    rows = [np.array([1, 0, 1], dtype=np.float32), np.zeros(3, dtype=np.float32)]
    several = Collator(0, types=False, most=128)([Item(tokens, row) for row in rows])["truth"]
    assert (several.dtype, several.tolist()) == (torch.float32, [[1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(("longest", "most", "width"), [(1, 128, 2), (6, 128, 6), (7, 128, 8), (7, 7, 7), (8, 7, 8)])
def test_batches_are_an_even_number_of_tokens_long_where_the_model_reads_so_many(
    longest: int, most: int, width: int
) -> None:
    items = [Item(Tokens(np.arange(1, n + 1), np.zeros(n, dtype=np.int64), truncated=False), 0) for n in (1, longest)]
    batch = Collator(0, types=True, most=most)(items)
    assert batch["input_ids"].shape == batch["token_type_ids"].shape == (2, width)
    assert batch["input_ids"].sum(dim=1).tolist() == [1, longest * (longest + 1) // 2]
    assert batch["attention_mask"].sum(dim=1).tolist() == [1, longest]


# ---- batches that are shared or taken in parts -----------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (1, 4), (3, 2)])
def test_shares_of_a_batch_weigh_together_what_the_batch_weighs(processes: int, parts: int) -> None:
    lengths = [index % 7 + 2 for index in range(53)]
    whole = list(LengthGroupedBatches(lengths, batch_size=8, seed=1))
    shares = [
        list(Shares(LengthGroupedBatches(lengths, 8, 1), rank=rank, processes=processes, parts=parts))
        for rank in range(processes)
    ]
    assert {len(each) for each in shares} == {len(whole) * parts}
    for number, batch in enumerate(whole):
        pieces = [share[number * parts + part] for part in range(parts) for share in shares]
        assert len({len(piece) for piece in pieces}) == 1
        counted = [index for piece in pieces for index, factor in piece if factor]
        assert sorted(counted) == sorted(batch)
        means = [sum(factor * index for index, factor in piece) / len(piece) for piece in pieces]
        assert np.mean(means) == pytest.approx(np.mean(batch))


def test_an_epoch_of_shares_has_an_order_of_its_own() -> None:
    shares = Shares(LengthGroupedBatches([3] * 40, batch_size=4, seed=1))
    first = list(shares)
    shares.set_epoch(1)
    assert list(shares) != first


def test_a_factor_multiplies_the_weight_of_a_text() -> None:
    item = Item(Tokens(np.array([1]), np.array([0]), truncated=False), 0, 1.5)
    items = Items([item])
    assert items[0, 1.0] is item
    assert items[0, 2.0].weight == 3.0


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 GiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_lack_of_memory_is_recognised_on_every_device(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_batches_that_do_not_fit_are_taken_in_parts_and_teach_the_same(
    tmp_path: Path, tiny_encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = (*settings_of("encoder", tiny_encoder), *PLAIN, "training_config.batch_size=10")
    train = sentences(96, seed=1)
    whole = tune(request_for(tmp_path / "whole", *settings, train=train))
    request = request_for(tmp_path / "parts", *settings, train=train)
    parts = tune(request, adapt=Greedy(3, torch.OutOfMemoryError))
    told = "Not enough memory for 10 texts per step: 3 per step instead and gradients accumulated over 4 steps"
    assert next(note for note in parts.notes if "memory" in note).startswith(told)
    assert told in caplog.text
    np.testing.assert_allclose(losses(parts), losses(whole), atol=1e-4)
    assert isinstance(request.reporter, Listener)
    assert request.reporter.fractions == sorted(request.reporter.fractions)


def test_a_lack_of_memory_in_the_middle_goes_on_from_the_newest_checkpoint(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = (*settings_of("encoder", tiny_encoder), *PLAIN, "training_config.save_strategy=steps")
    whole = tune(request_for(tmp_path / "whole", *settings))
    rooms = iter(range(1000))

    def adapt(model: torch.nn.Module) -> torch.nn.Module:
        def refuse(_: torch.nn.Module, inputs: object) -> None:
            if model.training and next(rooms) == 14:
                raise torch.OutOfMemoryError("out of memory")

        model.register_forward_pre_hook(refuse)
        return model

    parts = tune(request_for(tmp_path / "parts", *settings), adapt=adapt)
    assert "Resumed from checkpoint-10." in parts.notes
    np.testing.assert_allclose(losses(parts, "eval_loss"), losses(whole, "eval_loss"), atol=1e-4)


def test_memory_for_less_than_one_text_is_one_clear_line(tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder), *PLAIN, "training_config.batch_size=4")
    with pytest.raises(FamilyError, match=r"one text at a time: lower model_config\.max_length, or take a") as caught:
        tune(request, adapt=Greedy(0, MemoryError))
    assert "\n" not in str(caught.value)
    assert "mixed_precision" in str(caught.value)


# ---- strategies ------------------------------------------------------------------------------------------------------


def test_evaluations_and_checkpoints_by_steps_fall_where_they_are_wanted(tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(
        tmp_path,
        *(*settings_of("encoder", tiny_encoder), *PLAIN),
        "training_config.eval_strategy=steps",
        "training_config.eval_steps=20",
        "training_config.save_strategy=steps",
        "training_config.save_steps=15",
    )
    tuned = tune(request)  # 2 epochs of 23 updates
    assert [line["step"] for line in tuned.history if "eval_loss" in line] == [20, 40, 46]
    assert sorted(path.name for path in request.checkpoints.glob("checkpoint-*")) == ["checkpoint-30", "checkpoint-45"]


def test_steps_without_a_number_are_a_quarter_of_an_epoch() -> None:
    training = TrainingConfig(batch_size=8, gradient_accumulation_steps=2)
    assert cadence(None, training, 640) == 10
    assert cadence(None, training, 3) == 1
    assert cadence(7, training, 640) == 7


def test_without_evaluations_and_checkpoints_there_are_none(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "CHECKPOINT_GAP", 0.0)
    monkeypatch.setattr(watch, "CHECKPOINT_EVERY", 0.0)
    off = ("training_config.eval_strategy=no", "training_config.save_strategy=no")
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder), *PLAIN, *off)
    assert losses(tune(request), "eval_loss") == []
    assert list(request.checkpoints.glob("checkpoint-*")) == []
    stopping = request_for(tmp_path / "b", *settings_of("encoder", tiny_encoder), *off, reporter=Listener(stop_after=4))
    with pytest.raises(Stopped):  # what a person stops can always go on
        tune(stopping)
    assert [path.name for path in stopping.checkpoints.glob("checkpoint-*")] == ["checkpoint-5"]


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_early_stopping_works_with_either_strategy(strategy: str, tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(
        tmp_path,
        *settings_of("encoder", tiny_encoder),
        "training_config.num_epochs=30",
        f"training_config.eval_strategy={strategy}",
        "training_config.early_stopping_patience=2",
    )
    tuned = tune(request)
    figures = losses(tuned, "eval_macro_f1")
    assert figures.index(max(figures)) == len(figures) - 3
    assert f"The weights are those of evaluation {len(figures) - 2}, the best one." in tuned.notes
    logits = logits_of(request.out / "package", [each.fields for each in request.valid])
    right = np.mean([LABELS[row.argmax()] == each.label for row, each in zip(logits, request.valid, strict=True)])
    assert right == pytest.approx(losses(tuned, "eval_accuracy")[-3])


def test_weights_decay_but_biases_and_norms_do_not(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = (*settings_of("encoder", tiny_encoder), *PLAIN)
    plain, decayed = (
        _weights(tmp_path / str(decay), *settings, f"training_config.weight_decay={decay}") for decay in (0.0, 0.9)
    )
    matrix = "bert.encoder.layer.0.intermediate.dense.weight"
    assert decayed[matrix].norm() < plain[matrix].norm()


def test_seeds_decide(tmp_path: Path, tiny_encoder: Path) -> None:
    settings = (*settings_of("encoder", tiny_encoder), *PLAIN, "training_config.num_epochs=1")
    one, same, other = (
        _weights(tmp_path / name, *settings, f"training_config.seed={seed}")["classifier.weight"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def _weights(folder: Path, *settings: str) -> dict[str, torch.Tensor]:
    request = request_for(folder, *settings, train=sentences(96, seed=1), valid=[])
    tune(request)
    return load_file(request.out / "package" / "model.safetensors")


# ---- stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [Stopped, Crash])
def test_resuming_equals_going_through_with_several_labels_accumulation_and_steps(
    ends: type[Exception], tmp_path: Path, tiny_encoder: Path
) -> None:
    settings = (
        *(*settings_of("encoder", tiny_encoder), *PLAIN),
        "training_config.gradient_accumulation_steps=3",
        "training_config.save_strategy=steps",
        "training_config.save_steps=3",
        "training_config.eval_strategy=steps",
        "training_config.eval_steps=4",
        "training_config.label_smoothing=0.1",
    )
    data = {"multi_label": True, "train": several_labels(200, seed=1), "valid": several_labels(40, seed=2)}
    whole = tune(request_for(tmp_path / "whole", *settings, **data))
    reporter = Listener(stop_after=6) if ends is Stopped else Crasher(stop_after=7)
    with pytest.raises(ends):
        tune(request_for(tmp_path / "parts", *settings, **data, reporter=reporter))
    resumed = tune(request_for(tmp_path / "parts", *settings, **data, resume=True))
    assert f"Resumed from checkpoint-{7 if ends is Stopped else 6}." in resumed.notes
    np.testing.assert_allclose(losses(resumed, "eval_loss"), losses(whole, "eval_loss"), atol=1e-4)


def test_a_checkpoint_holds_only_what_learns(tmp_path: Path, tiny_encoder: Path) -> None:
    request = request_for(tmp_path, *settings_of("encoder", tiny_encoder), reporter=Listener(stop_after=2))
    with pytest.raises(Stopped):
        tune(request)
    (checkpoint,) = request.checkpoints.glob("checkpoint-*")
    held = load_file(checkpoint / "model.safetensors")
    assert "classifier.weight" in held
    assert "bert.embeddings.word_embeddings.weight" not in held


# ---- what cannot be had ----------------------------------------------------------------------------------------------


def test_a_loss_of_the_validation_texts_that_is_not_a_number_is_told() -> None:
    with pytest.raises(FamilyError, match=r"not a number at step 7; lower training_config\.learning_rate \(now 0\.5\)"):
        watch.check_loss(float("inf"), 7, TrainingConfig(learning_rate=0.5))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_processes": 64}, r"num_processes is 64, but the processor cores here are \d+; set it to \d+ or less"),
        ({"num_processes": 2, "batch_size": 1}, "2 processes cannot share batches of 1; raise"),
    ],
)
def test_more_processes_than_there_is_room_for_are_refused(
    settings: dict[str, int], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    with pytest.raises(FamilyError, match=told):
        devices.Machine.choose(TrainingConfig(device="cpu", **settings))


def test_a_gpu_that_only_emulates_bf16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert devices.choose_precision("auto", "cuda") == "fp16"
    with pytest.raises(FamilyError, match="does not compute in bf16"):
        devices.choose_precision("bf16", "cuda")


@pytest.mark.parametrize(
    ("has", "chosen"), [(("cuda", "mps"), "cuda"), (("mps",), "mps"), ((), "cpu")], ids=["cuda", "mps", "cpu"]
)
def test_the_fastest_device_is_taken(has: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in has)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in has)
    monkeypatch.delenv("KALIMTAK_DEVICE", raising=False)
    assert devices.choose_device("auto") == chosen


def test_a_label_of_one_text_is_learnt_from_it(tmp_path: Path, tiny_encoder: Path) -> None:
    train = [*sentences(60, seed=1), Example(("hail storm",), "rare")]
    balanced = "training_config.class_weights=balanced"
    request = request_for(
        tmp_path, *settings_of("encoder", tiny_encoder), balanced, labels=(*LABELS, "rare"), train=train
    )
    assert np.isfinite(losses(tune(request))).all()
