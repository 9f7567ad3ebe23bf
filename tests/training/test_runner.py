"""The trainer as a process of its own: what it is told, what it tells, how it stops; and how predictors are scored."""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from registry.calibration import Calibration
from registry.families.base import Answer, Example, Fields
from registry.manifest import verify_manifest
from training.run_process import NICENESS, TrainerProcess, end_orphan
from training.run_spec import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, RunSpec
from training.scoring import judge_predictor

TEXTS = {
    "glad": ("sunny smile", "a fine party", "we laugh a lot"),
    "sad": ("bitter tears", "all alone", "a heavy loss"),
}


def examples(count: int, start: int = 0) -> list[Example]:
    return [
        Example((f"{texts[number % 3]} {number}",), label)
        for label, texts in TEXTS.items()
        for number in range(start, start + count)
    ]


@pytest.fixture
def spec(sealed_run: RunSpec, tmp_path: Path) -> RunSpec:
    """A small classic run, its examples written, this process its supervisor."""
    folders = {"folder": tmp_path / "work", "out": tmp_path / "out", "checkpoints": tmp_path / "checkpoints"}
    for folder in folders.values():
        folder.mkdir()
    spec = changed(sealed_run, labels=("glad", "sad"), **folders)
    spec.write_examples("train", examples(20))
    spec.write_examples("valid", examples(4, start=50))
    spec.write_examples("golden", examples(5, start=80))
    return spec


def run(spec: RunSpec) -> tuple[int, list[dict[str, object]], str]:
    """Exit code, events and last words of one trainer."""
    with TrainerProcess(spec, spec.folder / "trainer.json") as trainer:
        while trainer.returncode() is None:
            time.sleep(0.02)
        return trainer.returncode(), trainer.events(), trainer.last_words()


def changed(spec: RunSpec, **values: object) -> RunSpec:
    spec = dataclasses.replace(spec, **values)
    spec.write()
    return spec


def test_a_spec_reads_back_as_it_was_written(spec: RunSpec) -> None:
    assert RunSpec.read(spec.path) == spec
    assert spec.read_examples("golden") == examples(5, start=80)


def test_awkward_texts_survive_the_way_to_the_trainer(spec: RunSpec) -> None:
    awkward = [Example(("a\nb\u2028c\r\x0b", "😀 \"'\\ مرحبا"), "glad", 2.5)]
    spec.write_examples("train", awkward)
    assert spec.read_examples("train") == awkward


def test_a_trainer_seals_an_artefact_and_reports_on_the_way(spec: RunSpec) -> None:
    code, events, _ = run(spec)
    assert code == EXIT_DONE
    assert events[-1]["event"] == "done"
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    manifest = verify_manifest(spec.out)
    assert manifest.snapshot_digest == "a" * 64
    assert manifest.metrics["n"] == 10
    result = json.loads(spec.result.read_text())
    assert result["scores"]["macro_f1"] == manifest.metrics["macro_f1"] == 1.0
    assert result["champion"] is None


def test_the_champion_is_scored_on_the_same_rows(spec: RunSpec, sealed_run: RunSpec) -> None:
    code, _, words = run(changed(spec, champion=sealed_run.out))
    assert code == EXIT_DONE, words
    result = json.loads(spec.result.read_text())
    assert result["champion"]["scores"]["n"] == result["scores"]["n"] == 10
    assert result["champion"]["scores"]["labels"] == ["glad", "sad", "calm"]


def test_a_broken_champion_is_a_note_and_no_failure(spec: RunSpec, tmp_path: Path) -> None:
    champion = tmp_path / "champion"
    champion.mkdir()
    code, events, _ = run(changed(spec, champion=champion))
    assert code == EXIT_DONE
    assert json.loads(spec.result.read_text())["champion"] is None
    assert any("could not be scored" in event["text"] for event in events if event["event"] == "note")


def test_what_cannot_be_learnt_from_is_told_in_one_line(spec: RunSpec) -> None:
    spec.write_examples("train", [Example(("sunny",), "glad")] * 5)
    code, events, _ = run(spec)
    assert code == EXIT_FAILED
    assert events[-1]["event"] == "error"
    assert "at least two labels" in events[-1]["message"]
    assert not (spec.out / "manifest.json").exists()


def test_a_fault_of_ours_leaves_its_traceback_in_the_log(spec: RunSpec) -> None:
    (spec.folder / "golden.jsonl").write_text("{}\n")
    code, events, words = run(spec)
    assert code == EXIT_FAILED
    assert events[-1]["message"].startswith("KeyError")
    assert "KeyError" in words
    assert "Traceback" in spec.log.read_text()


def test_term_stops_a_trainer_without_an_artefact(spec: RunSpec) -> None:
    with TrainerProcess(spec, spec.folder / "trainer.json") as trainer:
        while not trainer.events() and trainer.returncode() is None:  # it listens from its first event on
            time.sleep(0.005)
        with contextlib.suppress(psutil.NoSuchProcess):
            assert psutil.Process(trainer.pid).nice() >= NICENESS, "people go first"
        trainer.stop(seconds=20)
        assert trainer.returncode() in (EXIT_STOPPED, EXIT_DONE)  # done: it was that quick
        assert trainer.returncode() == EXIT_DONE or not (spec.out / "manifest.json").exists()


def test_a_trainer_does_not_outlive_its_supervisor(spec: RunSpec, tmp_path: Path) -> None:
    """The supervisor is a process that starts the trainer, says its number, and is killed."""
    pid_file = tmp_path / "trainer.json"
    code = (
        "import dataclasses, os, sys, time\nfrom pathlib import Path\n"
        "from training.run_process import TrainerProcess\nfrom training.run_spec import RunSpec\n"
        f"spec = dataclasses.replace(RunSpec.read(Path({str(spec.path)!r})), supervisor=os.getpid())\n"
        f"spec.write()\nTrainerProcess(spec, Path({str(pid_file)!r}))\ntime.sleep(60)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    while not pid_file.exists():
        time.sleep(0.005)
    supervisor.kill()
    supervisor.wait()
    trainer = json.loads(pid_file.read_text())["pid"]
    until = time.monotonic() + 5
    while psutil.pid_exists(trainer) and psutil.Process(trainer).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_an_orphan_is_ended_and_a_missing_or_broken_note_is_none(tmp_path: Path) -> None:
    pid_file = tmp_path / "trainer.json"
    assert not end_orphan(pid_file)
    pid_file.write_text("{half")
    assert not end_orphan(pid_file)
    orphan = subprocess.Popen(["sleep", "60"], start_new_session=True)
    pid_file.write_text(json.dumps({"pid": orphan.pid, "started": psutil.Process(orphan.pid).create_time()}))
    assert end_orphan(pid_file)
    assert not pid_file.exists()
    with contextlib.suppress(ChildProcessError):
        assert orphan.wait(5) in (-signal.SIGKILL, 0)


def test_a_stranger_with_the_number_of_an_old_trainer_is_left_alone(tmp_path: Path) -> None:
    pid_file = tmp_path / "trainer.json"
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    pid_file.write_text(json.dumps({"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 100}))
    assert not end_orphan(pid_file)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


class Fixed:
    """Answers every text with the same probabilities."""

    input_fields = ("text",)
    calibration = Calibration()

    def __init__(self, labels: tuple[str, ...], probabilities: Sequence[float]) -> None:
        self.labels = labels
        self._answer = Answer(np.array(probabilities, dtype=np.float32), truncated=False)

    def predict(self, inputs: Sequence[Fields]) -> list[Answer]:
        return [self._answer for _ in inputs]


def test_a_predictor_with_other_labels_is_judged_over_both_sets() -> None:
    old = Fixed(("sad", "angry"), (0.75, 0.25))
    judged = judge_predictor(old, ("glad", "sad"), examples(3), lambda share: None)
    assert judged.scores.labels == ("glad", "sad", "angry")
    assert judged.scores.accuracy == 0.5
    assert judged.scores.per_label["glad"]["recall"] == 0


def test_progress_reaches_one_and_lengths_add_up() -> None:
    seen: list[float] = []
    long = Example(("word " * 70,), "sad")
    judged = judge_predictor(Fixed(("glad", "sad"), (1, 0)), ("glad", "sad"), [*examples(40), long], seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert [part["slice"] for part in judged.slices["length"]] == ["1-8 words", "65 words and more"]
    assert [part["n"] for part in judged.slices["length"]] == [80, 1]
