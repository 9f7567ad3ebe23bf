"""`manage.py train`, `evaluate` and `list_runs`: what a person at a terminal sees, and what a script gets."""

import json
import os
import signal
import threading
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError

from kalimtak.core import jobs
from kalimtak.core.foreground import _Watcher
from kalimtak.core.models import Job
from registry import services as registry
from registry.models import Classifier, Evaluation
from training.models import TrainingRun
from training.services.work import WorkFolder

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def rings(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that a worker was rung for."""
    rung: list[Job] = []
    monkeypatch.setattr(jobs, "ring_for", rung.append)
    return rung


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def refused(*arguments: str) -> CommandError:
    with pytest.raises(CommandError) as error:
        run_command(*arguments)
    assert "\n" not in str(error.value)
    return error.value


def test_a_run_shows_its_figures_and_where_the_model_was_saved(taught_mood: Classifier, store: Path) -> None:
    printed = run_command("train", "mood")
    assert "Macro-F1" in printed
    assert "glad\t" in printed
    assert "Gate: passed. This is the first version" in printed
    assert f"Saved in {store / 'mood' / '1'}" in printed
    assert registry.live_version(taught_mood) is None


def test_deploy_deploys_and_json_is_json(taught_mood: Classifier, store: Path) -> None:
    result = json.loads(run_command("train", "mood", "--deploy", "--json", "--set", "training_config.C=2"))
    assert result["version"] == "mood/1"
    assert result["state"] == "succeeded"
    assert result["deployed"] is True
    assert result["folder"] == str(store / "mood" / "1")
    assert result["scores"]["per_label"]["glad"]["support"] == 6
    assert TrainingRun.objects.get().recipe["training_config"]["C"] == 2.0


def test_without_data_it_says_how_to_get_some(mood: Classifier) -> None:
    error = refused("train", "mood")
    assert error.returncode == 1
    assert "import_dataset FILE --classifier mood" in str(error)
    assert not Job.objects.exists()


def test_an_unknown_classifier_is_named(mood: Classifier) -> None:
    assert "There is no classifier 'mod'; enabled are: mood" in str(refused("train", "mod"))


def test_an_odd_assignment_is_refused_by_name(taught_mood: Classifier) -> None:
    error = refused("train", "mood", "--set", "training_config.num_epoch=2")
    assert "training_config.num_epoch" in str(error)
    assert error.returncode == 2


def test_an_unknown_type_is_refused_once_and_as_a_slip_of_usage(taught_mood: Classifier) -> None:
    error = refused("train", "mood", "--type", "oracle")
    assert (str(error).count("oracle"), error.returncode) == (1, 2)


def test_a_config_file_gives_type_and_recipe(taught_mood: Classifier, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("- name: Mood\n  type: classic\n  training_config: {C: 0.25, seed: 3}\n")
    run_command("train", "mood", "--config", str(config), "--queue")
    assert TrainingRun.objects.get().recipe["training_config"]["C"] == 0.25
    config.write_text("- name: other\n  type: classic\n")
    assert "has no entry for mood; it describes other" in str(refused("train", "mood", "--config", str(config)))
    error = refused("train", "mood", "--config", str(tmp_path / "none.yaml"))
    assert str(error).endswith("none.yaml cannot be read: No such file or directory.")
    assert error.returncode == 2


def test_queue_leaves_the_run_to_a_worker(taught_mood: Classifier, rings: list[Job]) -> None:
    printed = run_command("train", "mood", "--queue")
    job = Job.objects.get()
    assert str(job.pk) in printed
    assert job.state == "queued"
    assert rings == [job]


def test_a_failed_run_exits_1_with_the_reason(taught_mood: Classifier) -> None:
    error = refused("train", "mood", "--type", "encoder", "--set", "model_config.model_name=/nowhere")
    assert error.returncode == 1
    assert "/nowhere" in str(error)


def test_ctrl_c_cancels_the_run_and_resume_goes_on_with_it(taught_mood: Classifier) -> None:
    threading.Thread(target=interrupt_when_training, daemon=True).start()
    error = refused("train", "mood")
    assert error.returncode == 130
    assert Job.objects.get().state == "cancelled"
    printed = run_command("train", "mood", "--resume")
    assert "mood/1" in printed
    first, second = TrainingRun.objects.order_by("pk")
    assert first.snapshot_id == second.snapshot_id


def test_ctrl_c_is_heard_after_the_database_was_away(taught_mood: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    look, outages = _Watcher._look, iter([OperationalError("the server closed the connection")])

    def away_once(watcher: _Watcher) -> None:
        if outage := next(outages, None):
            raise outage
        look(watcher)

    monkeypatch.setattr(_Watcher, "_look", away_once)
    threading.Thread(target=interrupt_when_training, daemon=True).start()
    assert refused("train", "mood").returncode == 130


def interrupt_when_training() -> None:
    from django.db import connection

    while not (run := TrainingRun.objects.first()) or not WorkFolder(run.job_id).pid_file.exists():
        threading.Event().wait(0.02)
    connection.close()
    os.kill(os.getpid(), signal.SIGINT)


def test_resume_keeps_the_recipe_of_the_run(taught_mood: Classifier) -> None:
    assert refused("train", "mood", "--resume", "--set", "training_config.C=2").returncode == 2
    assert "never trained" in str(refused("train", "mood", "--resume"))


def test_runs_are_listed_newest_first(trained_mood: TrainingRun) -> None:
    run_command("train", "mood", "--queue")
    header, newest, oldest = run_command("list_runs").strip().splitlines()
    assert "Macro-F1" in header
    assert "queued" in newest
    assert "mood/1" in oldest and "succeeded" in oldest
    assert "No runs yet" in run_command("list_runs", "--classifier", "nobody")


def test_evaluate_prints_every_figure_of_the_golden_set(trained_mood: TrainingRun) -> None:
    printed = run_command("evaluate", "mood")
    for figure in ("Accuracy", "Macro precision", "Macro recall", "Macro-F1", "Log loss", "ECE"):
        assert figure in printed
    assert "Confusion matrix (rows: truth)\tglad\tsad\tcalm" in printed
    assert "1-8 words" in printed
    assert Evaluation.objects.count() == 1


def test_evaluate_judges_a_version_on_a_file(trained_mood: TrainingRun, tmp_path: Path) -> None:
    file = tmp_path / "held_out.csv"
    file.write_text("text,label\nsunny party,glad\ntears alone,sad\nquiet lake,calm\n")
    result = json.loads(run_command("evaluate", "mood", "--version", "1", "--dataset", str(file), "--json"))
    assert result["version"] == "mood/1"
    assert result["scores"]["n"] == 3
    assert result["scores"]["accuracy"] == 1.0
    assert Evaluation.objects.count() == 1


def test_evaluate_names_labels_that_the_classifier_does_not_have(trained_mood: TrainingRun, tmp_path: Path) -> None:
    file = tmp_path / "held_out.csv"
    file.write_text("text,label\nsunny party,glad\ntears alone,furious\n")
    assert "furious" in str(refused("evaluate", "mood", "--dataset", str(file)))


def test_evaluate_without_a_version_says_how_to_get_one(mood: Classifier) -> None:
    assert "run `manage.py train mood`" in str(refused("evaluate", "mood"))
