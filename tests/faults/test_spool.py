"""Somebody locks the database under load, everything is killed meanwhile, and again while the answers are recorded:
each answer that was given has its row in the end, once."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
import requests

from tests.faults.scene import Scene
from tests.installation import Installation
from tests.services import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@contextmanager
def locked(installation: Installation) -> Iterator[None]:
    """Nobody else writes answers meanwhile; who only reads is let through."""
    url = installation.environment["DATABASE_URL"]
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE interactions_userinteraction IN EXCLUSIVE MODE")
        yield


def test_nothing_is_lost_or_doubled_though_all_is_killed_while_spooling_and_while_recording(
    installation: Installation,
) -> None:
    scene, noted = Scene(installation), installation.folder / "died"
    key = installation.manage("create_api_key", "carla", "--scope", "predict", "read").split()[-1]
    deaths = {"KALIMTAK_CRASHPOINT": "spool.in_replay", "KALIMTAK_CRASHPOINT_ONCE": str(noted)}

    def ask() -> requests.Response:
        body, headers = {"text": "rain and wind", "request_id": "r1"}, {"Authorization": f"Bearer {key}"}
        return requests.post(f"{installation.url}/api/predict", json=body, headers=headers, timeout=30)

    scene.web()
    with scene.load() as load:
        load.wait_for_answers()
        with locked(installation):
            load.wait_for_answers(40)
            first = ask().json()
            load.wait_for_answers(40)
            installation.kill_all()
            installation.start_web(**deaths)
            load.wait_for_answers(40)
            assert [ask().json() for _ in range(8)] == [first] * 8, "whichever process answers"
            assert scene.ask("spooling.waiting().answers") > 0
        wait_until(lambda: noted.exists(), 30, what="a death while recording")
        load.wait_for_answers(40)
    scene.wait_for_an_empty_spool()
    assert load.without_retry_after == 0
    assert ask().json() == first
    load.answered.append(first["interaction_id"])
    scene.check_rows(load)
    scene.check()
