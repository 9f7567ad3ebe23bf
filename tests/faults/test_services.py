"""PostgreSQL and Redis may go away, be slow or come back empty: what is asked meanwhile gets a clear answer, what is
under way goes on by itself.

With servers of its own, hence once: beside the tests on SQLite, not again beside those on PostgreSQL.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.faults.conftest import taught
from tests.faults.scene import Scene
from tests.installation import Installation
from tests.services import FaultProxy, PrivatePostgres, PrivateRedis, wait_until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.skipif(
        bool(os.environ.get("KALIMTAK_TEST_DATABASE_URL")), reason="has a server of its own; runs beside SQLite"
    ),
]

AWAY_SECONDS = 8.0  # longer than it takes the watchdog of these tests to call a cluster stuck


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    made = PrivatePostgres()
    yield made
    made.close()


@pytest.fixture(scope="module")
def cache() -> Iterator[PrivateRedis]:
    made = PrivateRedis()
    yield made
    made.close()


@pytest.fixture(scope="module")
def house(server: PrivatePostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("services") / "installation", database=server.url, OMP_NUM_THREADS="1")
    taught(made)
    made.environment |= {"DJANGO_SETTINGS_MODULE": "tests.faults.settings"}
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(house: Installation) -> Scene:
    return Scene(house)


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    before = dict(shared.installation.environment)
    yield shared
    shared.installation.environment = before
    shared.check()


def restart_web(scene: Scene, **environment: str) -> None:
    """With other servers; the next test gets the usual ones again."""
    scene.installation.environment |= environment
    for process in scene.installation.own_processes():
        with suppress(psutil.Error):
            if "kalimtak.wsgi" in " ".join(process.cmdline()):
                process.kill()
    scene.web()


def rows_file(scene: Scene, name: str, rows: int) -> Path:
    path = scene.installation.folder / name
    lines = [f"{name} rain and wind number {n},{('weather', 'food')[n % 2]}" for n in range(rows)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def items(scene: Scene) -> int:
    return scene.ask("TrainingDataItem.objects.count()")


def give_feedback(scene: Scene, interaction: str) -> requests.Response:
    body = {"interaction_id": interaction, "rating": 5}
    return requests.post(f"{scene.installation.url}/api/feedback", json=body, timeout=30)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_everything_rides_out_a_restart_of_postgresql(scene: Scene, server: PrivatePostgres, mode: str) -> None:
    restart_web(scene)
    clusters = [scene.worker(), scene.worker("training")]
    restarts = [cluster.state["restarts"] for cluster in clusters]
    training = scene.ask("run_start(topic(), actor='olga').job_id")
    trainer = scene.trainer()
    held = [scene.ask(f"jobs.enqueue({kind!r}, {{}}).pk") for kind in ("held", "held_long")]
    for job in (training, *held):
        scene.owner(job)
    before, rows = items(scene), 3_000
    path = rows_file(scene, f"{mode}.csv", rows)
    source = f"__import__('pathlib').Path({str(path)!r})"
    dataset = f"dataset_add(topic(), source={source}, name={path.name!r}, actor='olga')"
    loading = scene.ask(f"dataset_import_queue({dataset}, actor='olga').pk")
    wait_until(lambda: items(scene) > before, 60, every=0.01, what="the first chunk")
    with scene.load() as load:
        load.wait_for_answers()
        server.stop(mode)
        gone = time.monotonic()
        trainer.resume()
        load.wait_for_answers()
        refused = give_feedback(scene, load.answered[0])
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        wait_until(lambda: time.monotonic() - gone > AWAY_SECONDS, 60, what="the end of the outage")
        server.start()
        load.wait_for_answers()
    assert set(load.statuses) == {200}
    assert load.cut == 0
    scene.wait_for_an_empty_spool()
    assert give_feedback(scene, load.answered[0]).status_code in (200, 201)
    scene.check_rows(load)
    for job in held:
        scene.open_gate(job)
        assert scene.wait_for(job)["attempt"] == 1
        assert scene.effects(job) == 1
    assert scene.wait_for(training)["attempt"] == 1
    scene.wait_for(loading)
    assert items(scene) == before + rows
    assert [cluster.state["restarts"] for cluster in clusters] == restarts


def test_answers_survive_a_line_to_postgresql_that_is_cut_and_slow(scene: Scene, server: PrivatePostgres) -> None:
    proxy = FaultProxy(server.port)
    restart_web(scene, DATABASE_URL=server.url.replace(str(server.port), str(proxy.port)))
    with scene.load() as load:
        for _ in range(5):
            load.wait_for_answers()
            proxy.cut()
        load.wait_for_answers()
        proxy.delay = 2.0
        time.sleep(AWAY_SECONDS)  # the time itself is the fault
        proxy.delay = 0.0
        load.wait_for_answers()
    assert set(load.statuses) <= {200, 503}
    assert (load.without_retry_after, load.cut) == (0, 0)
    scene.wait_for_an_empty_spool()
    scene.check_rows(load)
    restart_web(scene, DATABASE_URL=server.url)
    proxy.close()


def test_answering_needs_no_redis(scene: Scene, cache: PrivateRedis) -> None:
    restart_web(scene, REDIS_URL=cache.url)
    with scene.load() as load:
        load.wait_for_answers()
        cache.client.flushall()
        load.wait_for_answers()
        cache.stop()
        load.wait_for_answers()
        cache.start()
        load.wait_for_answers()
        cache.freeze()
        load.wait_for_answers()
        cache.thaw()
        load.wait_for_answers()
    assert set(load.statuses) == {200}
    assert load.cut == 0
    scene.check_rows(load)
