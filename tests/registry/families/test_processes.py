"""Several processes at one piece of work: what each may say, and that none is left behind or waited for in vain."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from registry.families import devices
from registry.families.base import FamilyError, Stopped
from registry.families.processes import work_together
from tests.registry.families.material import Listener, request_for, sentences, settings_of
from tests.registry.families.tuning import logits_of, losses, tune
from tests.registry.families.workers import PATIENCE, OwnError, fail, report, wait_for_stop


def test_the_first_one_answers_and_speaks_for_all() -> None:
    listener = Listener()
    answer = work_together(report, {"steps": 7}, 2, listener, expected=())
    assert answer == "0 of 2"
    assert (listener.fractions, listener.facts) == ([0.5], {"steps": 7})
    assert listener.figures == [{"step": 3, "epoch": 0.5, "loss": 1.0}]


@pytest.mark.parametrize(
    ("task", "raised", "told"),
    [
        ({}, FamilyError, "One of the training processes was killed by signal 9; the machine may be short of memory"),
        ({"rank": 0}, FamilyError, "was killed by signal 9"),
        ({"error": OwnError("too big")}, OwnError, "too big"),
        ({"error": KeyError("x")}, FamilyError, "A training process failed: KeyError: 'x'"),
    ],
    ids=["killed", "first-killed", "expected", "unexpected"],
)
def test_what_ends_one_ends_all(task: dict[str, Any], raised: type[Exception], told: str) -> None:
    begun = time.monotonic()
    with pytest.raises(raised, match=told):
        work_together(fail, task, 2, Listener(), expected=(OwnError,))
    assert time.monotonic() - begun < PATIENCE / 2
    assert [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())] == []


def test_a_request_to_stop_reaches_the_first_one() -> None:
    with pytest.raises(Stopped, match="stopped at step 3"):
        work_together(wait_for_stop, None, 2, Listener(stop_after=0), expected=())


def test_two_processes_learn_what_one_does(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    settings = (
        *settings_of("encoder", tiny_encoder),
        "training_config.num_epochs=2",
        "training_config.batch_size=7",
        "training_config.gradient_accumulation_steps=2",
        "training_config.mixed_precision=no",
        "training_config.early_stopping_patience=5",
        "training_config.save_strategy=steps",
        "training_config.save_steps=4",
    )
    data = {"train": sentences(99, seed=1), "valid": sentences(31, seed=2)}
    alone = request_for(tmp_path / "alone", *settings, **data)
    together = request_for(tmp_path / "together", *settings, "training_config.num_processes=2", **data)
    whole, shared = tune(alone), tune(together)
    assert "Trained on cpu in fp32, 2 processes." in shared.notes
    np.testing.assert_allclose(losses(shared), losses(whole), atol=1e-4)
    np.testing.assert_allclose(losses(shared, "eval_loss"), losses(whole, "eval_loss"), atol=1e-4)
    inputs = [example.fields for example in data["valid"]]
    np.testing.assert_allclose(
        logits_of(together.out / "package", inputs), logits_of(alone.out / "package", inputs), atol=1e-3
    )
    assert isinstance(together.reporter, Listener)
    assert together.reporter.facts["effective_batch"] == 14
    assert [path.name for path in together.checkpoints.glob("checkpoint-*")]
