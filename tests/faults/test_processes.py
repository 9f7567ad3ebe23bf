"""Any process may be killed or halted at any moment: work resumes or says why not, nothing happens twice."""

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.faults.scene import ConsoleError, Scene
from tests.installation import Installation
from tests.services import wait_until

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def house(template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all these tests: what one leaves behind, the next one meets."""
    cloned = template.clone(tmp_path_factory.mktemp("processes") / "installation")
    cloned.environment |= {"DJANGO_SETTINGS_MODULE": "tests.faults.settings"}
    yield cloned
    cloned.close()


@pytest.fixture(scope="module")
def shared(house: Installation) -> Scene:
    return Scene(house)


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    yield shared
    shared.check()


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for process in processes:
        wait_until(lambda process=process: not is_alive(process), 10, what="a death")


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


# Web --------------------------------------------------------------------------------------------------------------


def gunicorn(scene: Scene) -> list[psutil.Process]:
    """The master, then its workers."""
    found = [each for each in scene.installation.own_processes() if "kalimtak.wsgi" in " ".join(each.cmdline())]
    return sorted(found, key=lambda each: (len(each.children()) == 0, each.pid))


def test_every_answer_has_its_row_though_web_workers_and_their_master_are_killed(scene: Scene) -> None:
    scene.web()
    with scene.load() as load:
        load.wait_for_answers()
        kill(gunicorn(scene)[1])
        load.wait_for_answers()
        master, *workers = gunicorn(scene)
        kill(master)
        wait_until(lambda: not any(map(is_alive, workers)), 40, what="workers that end without their master")
        scene.web()
        load.wait_for_answers()
    assert set(load.statuses) == {200}
    assert load.cut
    scene.check_rows(load)


# Queue ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker", "sentinel", "leader", "watchdog", "everything"])
def test_a_short_job_is_done_once_whoever_dies_under_it(scene: Scene, victim: str) -> None:
    cluster = scene.worker()
    job = scene.ask("jobs.enqueue('held', {}).pk")
    at_work = scene.owner(job)
    group = cluster.group()
    assert at_work in group
    match victim:
        case "worker":
            kill(at_work)
        case "sentinel":
            kill(cluster.sentinel)
        case "leader":
            kill(cluster.leader)
        case "watchdog":
            cluster.watchdog.kill()
        case "everything":
            scene.installation.kill_all()
    wait_until(lambda: not is_alive(at_work), 10, what="the end of the worker")
    if victim != "worker":
        wait_until(lambda: not any(map(is_alive, group)), 10, what="the end of its cluster")
    scene.worker()
    scene.open_gate(job)
    assert scene.wait_for(job)["attempt"] == 2
    assert scene.effects(job) == 1


def test_a_long_job_goes_back_to_the_queue_when_its_worker_is_told_to_stop(scene: Scene) -> None:
    cluster = scene.worker()
    job = scene.ask("jobs.enqueue('held_long', {}).pk")
    supervisor = scene.owner(job)
    cluster.stop()
    assert not is_alive(supervisor)
    assert (scene.job(job)["state"], scene.job(job)["attempt"]) == ("queued", 0)
    scene.worker()
    scene.open_gate(job)
    assert scene.wait_for(job)["attempt"] == 1
    assert scene.effects(job) == 1


def test_a_poisoned_job_is_set_aside_and_the_others_are_done(scene: Scene) -> None:
    scene.worker()
    poisoned = [scene.ask(f"jobs.enqueue({kind!r}, {{}}).pk") for kind in ("poison", "poison_long")]
    others = [scene.ask(f"jobs.enqueue({kind!r}, {{}}).pk") for kind in ("held", "held", "held_long")]
    for job in others:
        scene.open_gate(job)
        scene.wait_for(job)
        assert scene.effects(job) == 1
    for job in poisoned:
        row = scene.wait_for(job, "quarantined")
        assert row["attempt"] == 3
        assert "died 3 times" in row["error"]


# Supervisors and trainers -----------------------------------------------------------------------------------------


def versions(scene: Scene) -> int:
    return scene.ask("ModelVersion.objects.count()")


@pytest.mark.parametrize(
    ("victims", "attempts"),
    [("trainer", 1), ("supervisor", 2), ("supervisor and trainer", 2), ("everything", 2)],
)
def test_a_training_ends_in_one_version_whoever_dies_under_it(scene: Scene, victims: str, attempts: int) -> None:
    scene.worker("training")
    before = versions(scene)
    job = scene.ask("run_start(topic(), actor='olga').job_id")
    trainer, supervisor = scene.trainer(), scene.owner(job)
    match victims:
        case "trainer":
            kill(trainer)
        case "supervisor":
            kill(supervisor)
            with suppress(psutil.NoSuchProcess):
                trainer.resume()  # it may have been halted before it was bound to its supervisor
            wait_until(lambda: not is_alive(trainer), 30, what="the end of the orphan")
        case "supervisor and trainer":
            kill(supervisor, trainer)
        case "everything":
            scene.installation.kill_all()
            scene.worker("training")
    assert scene.wait_for(job)["attempt"] == attempts
    assert versions(scene) == before + 1


def test_a_training_goes_on_while_its_queue_is_started_again(scene: Scene) -> None:
    cluster = scene.worker("training")
    before = versions(scene)
    job = scene.ask("run_start(topic(), actor='olga').job_id")
    trainer, supervisor = scene.trainer(), scene.owner(job)
    cluster.wait_until_replaced(cluster.freeze())
    assert is_alive(supervisor)
    trainer.resume()
    assert scene.wait_for(job)["attempt"] == 1
    assert versions(scene) == before + 1


def lose_lease(scene: Scene, job: str) -> psutil.Process:
    """Halt the supervisor of `job` for longer than its lease; returns the halted process."""
    zombie = scene.owner(job)

    def is_lost() -> bool:
        # Right after a report, since a process that is halted in a transaction of SQLite halts all others as well.
        seen = lease_of(scene, job)
        wait_until(lambda: lease_of(scene, job) != seen, 30, every=0.01, what="a report")
        zombie.suspend()
        try:
            past = "timezone.now() - timedelta(seconds=1)"
            return scene.ask(f"Job.objects.filter(pk={job!r}).update(lease_until={past})") == 1
        except ConsoleError:
            zombie.resume()
            raise

    wait_until(is_lost, 90, what="a lease that ran out")
    return zombie


def lease_of(scene: Scene, job: str) -> str:
    return scene.ask(f"Job.objects.get(pk={job!r}).lease_until")


def test_a_supervisor_that_slept_through_its_lease_has_no_effect(scene: Scene) -> None:
    scene.worker()
    job = scene.ask("jobs.enqueue('held_long', {}).pk")
    zombie = lose_lease(scene, job)
    scene.open_gate(job)  # both may go on now
    row = scene.wait_for(job)
    assert (row["attempt"], scene.effects(job)) == (2, 1)
    zombie.resume()
    wait_until(lambda: not is_alive(zombie), 30, what="the end of the sleeper")
    assert scene.job(job) == row
    assert scene.effects(job) == 1


def test_a_training_that_slept_through_its_lease_registers_nothing(scene: Scene) -> None:
    scene.worker("training")
    before = versions(scene)
    job = scene.ask("run_start(topic(), actor='olga').job_id")
    trainer = scene.trainer()
    zombie = lose_lease(scene, job)
    row = scene.wait_for(job)
    assert row["attempt"] == 2
    assert not is_alive(trainer)
    zombie.resume()
    wait_until(lambda: not is_alive(zombie), 30, what="the end of the sleeper")
    assert scene.job(job) == row
    assert versions(scene) == before + 1


def test_of_two_supervisors_one_gets_the_job(scene: Scene) -> None:
    job = scene.ask("jobs.enqueue('held_long', {}, ring=False).pk")
    rivals = [scene.installation.start("run_job", job, name=f"rival-{number}") for number in range(3)]
    winner = scene.owner(job)
    losers = [rival for rival in rivals if rival.pid != winner.pid]
    for loser in losers:
        assert loser.wait(60) == 0
    scene.open_gate(job)
    assert scene.wait_for(job)["attempt"] == 1
    assert scene.effects(job) == 1
