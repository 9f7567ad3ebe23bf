"""Every web process keeps to a core of its own, where there are as many of them as cores."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import psutil
import pytest

from kalimtak.core import cores
from kalimtak.core.cores import Place
from tests.installation import ROOT
from tests.services import free_port

SERVER = """
from kalimtak.gunicorn import *

bind = "127.0.0.1:%d"
wsgi_app = "application:application"

def post_worker_init(worker):
    pass
"""
APPLICATION = """
import json, os

def application(environ, start_response):
    answer = json.dumps({"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0))}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
"""
several = pytest.mark.skipif(len(cores.usable()) < 2, reason="there is one core only, or the system does not tell")


@pytest.fixture
def four(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: [0, 1, 4, 5])


@pytest.mark.parametrize(
    ("held", "core"),
    [([], 0), ([0], 1), ([1, 0, 5], 4), ([0, 4, 5, None], 1), ([0, 1, 4, 5], 0), ([0, 1, 4, 5, 0, 1], 4)],
)
def test_a_process_gets_the_core_that_fewest_have(four, held, core):
    assert cores.for_next(held, 4) == core


@pytest.mark.parametrize("processes", [1, 3, 5, 64])
def test_fewer_or_more_processes_than_cores_are_bound_to_none(four, processes):
    assert cores.for_next([], processes) is None


def test_one_core_is_no_choice(monkeypatch):
    monkeypatch.setattr(cores, "usable", lambda: [3])
    assert cores.for_next([], 1) is None


@several
def test_a_thread_keeps_to_the_core_and_leaves_it():
    place, before = Place(), cores.usable()
    place.keep()
    assert cores.usable() == before  # nobody gave it one
    place.take(before[-1])
    try:
        place.keep()
        assert cores.usable() == before[-1:]
    finally:
        place.leave()
    assert cores.usable() == before


@several
def test_a_core_that_was_taken_away_binds_nobody():
    place, before = Place(), cores.usable()
    place.take(max(before) + 4096)
    place.keep()
    assert cores.usable() == before


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(**environment):
        port = free_port()
        (tmp_path / "config.py").write_text(SERVER % port)
        (tmp_path / "application.py").write_text(APPLICATION)
        usual = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "KALIMTAK_PIN_WORKERS": "1"}
        environment = os.environ | usual | environment
        command = [sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "config.py")]
        server = psutil.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
        started.append(server)
        return server, port

    yield start
    for server in started:
        server.terminate()
        assert server.wait(20) == 0


def bound(server, wanted, seconds=20):
    """The cores of each worker's first thread, as soon as they are `wanted`, or after some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for worker in server.children():
            with suppress(psutil.Error):  # it ends meanwhile
                found.append(worker.cpu_affinity())
        found.sort()
        if found == wanted or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@several
@pytest.mark.own_servers
def test_workers_share_the_cores_among_them_and_a_new_one_takes_what_the_dead_one_had(serve):
    every = cores.usable()
    server, port = serve(WEB_CONCURRENCY=str(len(every)))
    one_each = [[core] for core in every]
    assert bound(server, one_each) == one_each
    dead = server.children()[0]
    dead.kill()
    psutil.wait_procs([dead], timeout=10)
    assert bound(server, one_each) == one_each
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert json.load(answer)["cores"] == every  # a page, and whatever it starts, may use them all


@several
@pytest.mark.own_servers
@pytest.mark.parametrize(
    "changes", [{"KALIMTAK_PIN_WORKERS": "0"}, {"WEB_CONCURRENCY": "1"}], ids=lambda each: next(iter(each))
)
def test_workers_are_bound_to_none_where_that_is_not_wanted_or_of_no_use(serve, changes):
    every = cores.usable()
    _, port = serve(**{"WEB_CONCURRENCY": str(len(every))} | changes)
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                said = json.load(answer)
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert said["cores"] == every
    assert psutil.Process(said["pid"]).cpu_affinity() == every
