"""PostgreSQL restarted, stopped, cut off, exhausted, locked or read-only under a running web server.

Questions go on being answered, out of the spool; whatever else needs the database gets 503 with `Retry-After`, nothing
else. All is well again, and every answer in the table, without a restart of the web server.
"""

import os
import runpy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
import requests

from tests.installation import PASSWORD, ROOT, Installation
from tests.services import FaultProxy, PrivatePostgres, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.own_servers, pytest.mark.slow]

TEXT = "rain and wind 3"
POOL = 6


@pytest.fixture(scope="module")
def server():
    server = PrivatePostgres()
    yield server
    server.close()


@pytest.fixture(scope="module")
def proxy(server):
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def installation(server, proxy, tmp_path_factory):
    """One web process with a small pool, which reaches the server through the proxy; a model is live."""
    installation = Installation(
        tmp_path_factory.mktemp("web"),
        database=server.url.replace(f":{server.port}/", f":{proxy.port}/"),
        WEB_CONCURRENCY="1",
        KALIMTAK_DATABASE_POOL=str(POOL),
    ).set_up()
    installation.manage("import_dataset", str(installation.folder / "items.csv"), "--classifier", "topic")
    installation.manage("train", "topic", "--deploy")
    installation.start_web()
    yield installation
    installation.close()


@pytest.fixture
def web(installation):
    """The running installation, found and left in good health."""
    wait_until(lambda: ask(installation).status_code == 200, 20, what="an answer")
    pids = {process.pid for process in installation.own_processes()}
    yield installation
    wait_until(lambda: ask(installation).status_code == 200, 20, what="an answer")
    assert {process.pid for process in installation.own_processes()} == pids, "no process had to be replaced"


@pytest.fixture(scope="module")
def olga(installation):
    """Olga's session, signed in."""
    session = requests.Session()
    address = f"{installation.url}/admin/login/"
    session.get(address, timeout=20)
    form = {"username": "olga", "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    response = session.post(address, form | {"next": "/admin/"}, headers={"Referer": address}, timeout=20)
    assert response.status_code == 200 and response.url.endswith("/admin/")
    return session


def ask(installation: Installation, **more: str) -> requests.Response:
    return requests.post(f"{installation.url}/api/classify/topic", json={"text": TEXT} | more, timeout=30)


def assert_says_when_to_come_back(response: requests.Response) -> None:
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) > 0
    if "/api/" in response.url:
        assert response.json()["error"]["code"] == "unavailable"
    else:
        assert "Back in a moment" in response.text
    assert "psycopg" not in response.text and "server" not in response.text


class Traffic:
    """Questions that go on while something else happens; every answer is looked up in the table at the end."""

    def __init__(self, installation: Installation) -> None:
        self.installation, self.answers, self.refusals, self.slowest = installation, [], [], 0.0
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.flow) for _ in range(4)]

    def flow(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            response = ask(self.installation)
            self.slowest = max(self.slowest, time.monotonic() - started)
            if response.status_code == 200:
                self.answers.append(response.json()["interaction_id"])
            else:
                self.refusals.append(response)

    def __enter__(self) -> "Traffic":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def wait_for_answers(self, count: int = 5) -> None:
        seen = len(self.answers)
        wait_until(lambda: len(self.answers) >= seen + count, 20, what="answers")


def recorded(server: PrivatePostgres) -> list[str]:
    with psycopg.connect(server.url) as connection:
        return [str(row[0]) for row in connection.execute("SELECT id FROM interactions_userinteraction")]


def assert_all_were_recorded(server: PrivatePostgres, traffic: Traffic) -> None:
    """Of a restart no client learns."""
    wait_until(lambda: set(traffic.answers) <= set(recorded(server)), 20, what="the rows of all answers")
    assert len(set(traffic.answers)) == len(traffic.answers)
    assert traffic.refusals == []
    assert traffic.slowest < 9


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server_is_found_again(web, server, mode):
    with Traffic(web) as traffic:
        traffic.wait_for_answers()
        server.restart(mode)
        traffic.wait_for_answers()
    assert_all_were_recorded(server, traffic)


def test_while_the_server_is_down_answers_go_on_and_the_other_doors_say_when_to_come_back(web, server, olga):
    with Traffic(web) as traffic:
        traffic.wait_for_answers()
        server.stop()
        traffic.wait_for_answers(20)
        assert_says_when_to_come_back(ask(web, request_id="may have been answered before"))
        started = time.monotonic()
        assert_says_when_to_come_back(olga.get(f"{web.url}/admin/registry/classifier/", timeout=20))
        assert time.monotonic() - started < 8
        assert requests.get(f"{web.url}/livez", timeout=5).status_code == 200
        ready = requests.get(f"{web.url}/readyz", timeout=20)
        assert (ready.status_code, ready.json()["problems"]) == (200, [])
        assert requests.get(f"{web.url}/", timeout=20).status_code == 200, "the playground itself needs no database"
        server.start()
        traffic.wait_for_answers()
    assert_all_were_recorded(server, traffic)
    assert olga.get(f"{web.url}/admin/registry/classifier/", timeout=20).status_code == 200


def test_connections_cut_in_the_middle_cost_no_answer(web, server, proxy):
    with Traffic(web) as traffic:
        for _ in range(5):
            traffic.wait_for_answers()
            proxy.cut()
        traffic.wait_for_answers()
    assert_all_were_recorded(server, traffic)


@contextmanager
def locked(server: PrivatePostgres, table: str):
    """Somebody else holds the whole table, as a migration may."""
    with psycopg.connect(server.url) as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


def test_an_exhausted_pool_refuses_within_seconds(web, server, olga):
    def look(_: int) -> tuple[requests.Response, float]:
        started = time.monotonic()
        response = requests.get(f"{web.url}/admin/", cookies=olga.cookies.get_dict(), timeout=30)
        return response, time.monotonic() - started

    with locked(server, "auth_user"), ThreadPoolExecutor(2 * POOL) as threads:
        seen = list(threads.map(look, range(2 * POOL)))
    for response, seconds in seen:
        assert_says_when_to_come_back(response)
        assert seconds < 10
    assert look(0)[0].status_code == 200


def test_a_locked_table_holds_an_answer_back_for_seconds_only(web, server):
    started = time.monotonic()
    with locked(server, "interactions_userinteraction"):
        answer = ask(web).json()["interaction_id"]
        assert time.monotonic() - started < 6
        feedback = requests.post(f"{web.url}/api/feedback", json={"interaction_id": answer, "rating": 5}, timeout=30)
        assert_says_when_to_come_back(feedback)
    wait_until(lambda: answer in recorded(server), 20, what="the row")


def test_a_server_that_only_reads_refuses_what_writes_and_shows_the_rest(web, server, olga):
    """As a standby does until it is promoted."""
    for setting in ("on", "off"):
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE kalimtak SET default_transaction_read_only = {setting}")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'kalimtak'")
        if setting == "on":
            wait_until(lambda: olga.get(f"{web.url}/admin/", timeout=20).status_code == 200, 10, what="the dashboard")
            first = ask(web, request_id="r1").json()
            assert ask(web, request_id="r1").json() == first
            assert ask(web, request_id="r1", subject="x").status_code == 409
            assert_says_when_to_come_back(post_login(web))
    wait_until(lambda: recorded(server).count(first["interaction_id"]) == 1, 20, what="the row")
    assert ask(web, request_id="r1").json() == first


def post_login(installation: Installation) -> requests.Response:
    session = requests.Session()
    address = f"{installation.url}/admin/login/"
    session.get(address, timeout=20)
    form = {"username": "olga", "password": PASSWORD, "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    return session.post(address, form, headers={"Referer": address}, timeout=20)


def test_the_web_server_limits_what_a_statement_may_take(server, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    runpy.run_path(str(ROOT / "kalimtak" / "gunicorn.py"))
    limits = {"statement_timeout": "20s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "1min"}
    with psycopg.connect(server.url, options=os.environ["PGOPTIONS"]) as connection:
        assert {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in limits} == limits


def test_only_the_web_server_pools_since_its_processes_do_not_fork(installation):
    program = "from django.conf import settings; print('pool' in settings.DATABASES['default']['OPTIONS'])"
    assert installation.python(program).strip() == "False"
    assert installation.python(program, SERVER_SOFTWARE="gunicorn/27").strip() == "True"
