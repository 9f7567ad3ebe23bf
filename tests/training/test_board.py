"""TensorBoard: what a run writes for it, TensorBoard beside a run, and `manage.py tensorboard`."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.board import RunBoard, hyper_parameters
from training.board_server import BoardServer

ROOT = Path(__file__).parents[2]


def read(folder: Path) -> EventAccumulator:
    """As TensorBoard itself reads it."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(each.step, pytest.approx(each.value, abs=1e-6)) for each in read(folder).Scalars(tag)]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_tensorboard_reads_what_a_run_reports(tmp_path: Path) -> None:
    board = RunBoard(tmp_path)
    board.text("hyper-parameters", hyper_parameters("classic", {"training_config": {"C": 5.0, "odd": "a|b"}}))
    board.figures(10, {"loss": 0.5, "learning_rate": 1e-4})
    board.figures(20, {"eval_loss": 0.25, "eval_macro_f1": 0.75})
    board.outcome({"accuracy": 0.875})
    board.close()
    assert not board.problem
    assert scalars(tmp_path, "train/loss") == [(10, 0.5)]
    assert scalars(tmp_path, "eval/macro_f1") == [(20, 0.75)]
    assert scalars(tmp_path, "test/accuracy") == [(20, 0.875)]
    (text,) = read(tmp_path).Tensors("hyper-parameters")
    assert "| training_config.odd | a\\|b |" in text.tensor_proto.string_val[0].decode()


def test_a_resumed_run_takes_the_place_of_the_steps_it_repeats(tmp_path: Path) -> None:
    first = RunBoard(tmp_path)
    for step in (10, 20, 30):
        first.figures(step, {"loss": 1.0})
    again = RunBoard(tmp_path)  # the first one was killed: nothing was closed
    again.figures(20, {"loss": 0.5})
    assert scalars(tmp_path, "train/loss") == [(10, 1.0), (20, 0.5)]


def test_a_board_that_cannot_be_written_says_so_once_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    board = RunBoard(tmp_path / "file" / "below")
    board.figures(1, {"loss": 1.0})
    board.outcome({"accuracy": 1.0})
    board.close()
    assert board.problem.startswith("TensorBoard's event file could not be written: ")


def test_a_taken_port_costs_a_run_no_more_than_a_note(tmp_path: Path, taken: int) -> None:
    with BoardServer(tmp_path, taken, tmp_path / "log") as server:
        assert f"Port {taken} is in use" in server.problem()


def answers(port: int, name: str = "run-1") -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as response:
            return name in json.loads(response.read())
    except OSError:
        return False


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_for(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_tensorboard_shows_the_runs_and_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    RunBoard(tmp_path / "boards" / "run-1").figures(1, {"loss": 1.0})
    port, pid_file = free_port(), tmp_path / "pid"
    code = (
        "import time\nfrom pathlib import Path\nfrom training.board_server import BoardServer\n"
        f"server = BoardServer(Path({str(tmp_path / 'boards')!r}), {port}, Path({str(tmp_path / 'log')!r}))\n"
        f"Path({str(pid_file)!r}).write_text(str(server._process.pid))\ntime.sleep(120)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: answers(port))
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait()
    wait_for(lambda: gone(int(pid_file.read_text())))


def test_the_command_refuses_a_taken_port_in_one_line(tmp_path: Path, taken: int, settings) -> None:
    from django.core.management import CommandError, call_command

    settings.KALIMTAK_VAR = tmp_path
    with pytest.raises(CommandError, match=f"Port {taken} is in use") as refused:
        call_command("tensorboard", port=taken)
    assert "\n" not in str(refused.value)
    with pytest.raises(CommandError, match="from 0 to 65535"):
        call_command("tensorboard", port=70_000)


@pytest.mark.slow
def test_the_command_says_its_address_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    environment = os.environ | {"KALIMTAK_VAR": str(tmp_path)}
    command = [sys.executable, "manage.py", "tensorboard", "--port", "0"]
    board = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert board.stdout is not None
    assert "TensorBoard is at http://127.0.0.1:" in board.stdout.readline()
    board.send_signal(signal.SIGINT)
    assert board.wait(20) == 0


@pytest.mark.django_db(transaction=True)
def test_a_run_writes_its_board_and_a_taken_port_is_a_note_of_the_run(taught_mood, taken, monkeypatch) -> None:
    from kalimtak.core import jobs
    from training import services
    from training.services.boards import BOARDS_KEPT, board_folder, boards_sweep

    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    wanted = ["tensorboard_config.auto_start=true", f"tensorboard_config.port={taken}"]
    run = services.run_start(taught_mood, actor="olga", overrides=wanted)
    assert jobs.run(run.job_id) == "succeeded"
    run.refresh_from_db()
    assert any(f"Port {taken} is in use" in note for note in run.notes)
    run.job.refresh_from_db()
    assert run.job.result["notes"] == run.notes
    assert run.facts["device"] == "cpu"
    assert scalars(board_folder(run), "test/accuracy") == [(20, run.version.metrics["accuracy"])]
    for number in range(run.pk + 1, run.pk + 1 + BOARDS_KEPT):
        board_folder(run).with_name(f"run-{number}").mkdir()
    assert boards_sweep(taught_mood) == 1
    assert not board_folder(run).exists()


@pytest.mark.django_db(transaction=True)
def test_tensorboard_starts_and_stops_with_a_run_whose_page_links_to_it(taught_mood, admin_client, monkeypatch) -> None:
    from django.urls import reverse

    from kalimtak.core import jobs
    from training import services
    from training.services import execution

    port = free_port()
    address, seen = f"http://127.0.0.1:{port}/", []
    run_trainers = execution._run_trainers

    def page_of(run) -> str:
        return admin_client.get(reverse("admin:training_trainingrun_change", args=[run.pk])).text

    def watched(watch, *rest) -> None:
        """The trainer, then a look around while the run goes on."""
        run_trainers(watch, *rest)
        wait_for(lambda: answers(port, f"run-{run.pk}"))
        seen.append(page_of(run))

    monkeypatch.setattr(jobs, "ring_for", lambda job: None)
    monkeypatch.setattr(execution, "_run_trainers", watched)
    wanted = ["tensorboard_config.auto_start=true", f"tensorboard_config.port={port}"]
    run = services.run_start(taught_mood, actor="olga", overrides=wanted)
    assert address not in page_of(run)
    assert jobs.run(run.job_id) == "succeeded"
    assert f'href="{address}"' in seen[0]
    run.refresh_from_db()
    assert not any("TensorBoard" in note for note in run.notes)
    assert not answers(port, f"run-{run.pk}")
    with socket.create_server(("127.0.0.1", port)):
        pass  # nobody listens there any more
    assert f'href="{address}"' not in page_of(run)
