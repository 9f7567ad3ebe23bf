"""`doctor` names each fault with its remedy, says ok where there is none, and never waits for what is away."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from django.utils import timezone

from tests.care.test_fsck import age, flip_a_bit, new_job, running, set_to
from tests.installation import Installation
from tests.services import FaultProxy, PrivatePostgres, PrivateRedis

QUICK = {"quick": True}


def lines(check, **options):
    """What one check says, a line each: state, what, remedy."""
    from kalimtak.doctor import Options

    said = list(check(Options(**options)))
    assert all(each.remedy for each in said if each.state in ("warning", "problem"))
    return [f"{each.state}: {each.what} → {each.remedy}" for each in said]


def only(found):
    (line,) = found
    return line


# Database ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_database_that_answers_is_named_with_its_version():
    from kalimtak.doctor.database import database_answers, tables_are_up_to_date

    found = lines(database_answers)
    assert "SQLite 3." in found[-1] or "PostgreSQL 1" in found[-1]
    assert not any(line.startswith("problem") for line in found)
    assert lines(tables_are_up_to_date) == ["ok: all are applied → "]


@pytest.mark.django_db
def test_tables_that_are_older_or_newer_than_the_code_are_named():
    from django.db.migrations.recorder import MigrationRecorder

    from kalimtak.doctor.database import tables_are_up_to_date

    rows = MigrationRecorder.Migration.objects
    rows.filter(app="training").last().delete()
    rows.create(app="registry", name="0099_from_the_future")
    older, newer = lines(tables_are_up_to_date)
    assert "the first training.0" in older and "manage.py setup" in older
    assert "newer than this code: registry.0099_from_the_future" in newer


@pytest.mark.django_db
@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (5, "warning"), (-3600, "problem")])
def test_clocks_that_differ_are_named(monkeypatch, seconds, state):
    from kalimtak.doctor import database

    monkeypatch.setattr(database, "database_now", lambda: timezone.now() + timedelta(seconds=seconds))
    line = only(lines(database.clocks_agree))
    assert line.startswith(state)
    assert not seconds or f"{abs(seconds)} s away" in line


@pytest.fixture(scope="module")
def server():
    server = PrivatePostgres()
    yield server
    server.close()


def doctor(installation, *arguments, **extra):
    """The doctor as a process: its exit status and its diagnoses by the name of their check."""
    began = time.monotonic()
    output = installation.manage("doctor", "--quick", "--json", *arguments, code=None, **extra)
    assert "Traceback" not in output
    assert time.monotonic() - began < 60
    found = {}
    for each in json.loads(output[output.index("{\n") :])["diagnoses"]:
        found.setdefault(each["check"], []).append(f"{each['state']}: {each['what']} → {each['remedy']}")
    return found


@pytest.fixture
def on_the_server(server, tmp_path):
    installation = Installation(tmp_path / "installation", database=server.url, SECRET_KEY="s" * 50)
    yield installation
    installation.close()


@pytest.mark.postgres
def test_postgres_restarted_read_only_full_stopped_and_frozen(server, on_the_server):
    database = doctor(on_the_server)["database"]
    assert "PostgreSQL was restarted" in database[0] and "reconnect by themselves" in database[0]

    crowd = [psycopg.connect(server.url) for _ in range(55)]
    try:
        crowd[0].execute("ALTER ROLE kalimtak SET default_transaction_read_only = on")
        crowd[0].commit()
        found = "".join(doctor(on_the_server)["database"])
        assert "PostgreSQL is read-only" in found and "of 60 connections are taken" in found
        crowd[0].execute("ALTER ROLE kalimtak RESET default_transaction_read_only")
        crowd[0].commit()
    finally:
        for each in crowd:
            each.close()

    postmaster = int((Path(server.data) / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        assert "does not answer" in doctor(on_the_server)["database"][0]
    finally:
        os.kill(postmaster, signal.SIGCONT)

    server.stop("immediate")
    try:
        found = doctor(on_the_server)
    finally:
        server.start()
    assert "Connection refused" in found["database"][0] and "Start PostgreSQL" in found["database"][0]
    assert found["jobs move"] == ["skipped: not examined: the database cannot be used → "]
    assert found["models store"][0].startswith("ok")


def test_a_lost_sqlite_file_is_named_and_not_made_anew(tmp_path):
    path = tmp_path / "lost.sqlite3"
    installation = Installation(tmp_path / "installation", database=f"sqlite:///{path}", SECRET_KEY="s" * 50)
    out = installation.manage("doctor", "--quick", code=1)
    assert f"{path} is missing" in out
    assert not path.exists()


# Cache -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_server(settings):
    server = PrivateRedis()
    settings.REDIS_URL = server.url
    yield server
    server.close()


def cache():
    from kalimtak.doctor.cache import cache_answers

    return only(lines(cache_answers))


def test_the_shared_file_is_a_cache_too(settings):
    settings.REDIS_URL = ""
    assert cache().startswith("ok: a file")


@pytest.mark.redis
def test_redis_read_only_evicting_frozen_and_stopped(redis_server):
    assert cache().startswith("ok: Redis answers in")
    redis_server.client.replicaof("127.0.0.1", 1)
    assert "Redis is read-only" in cache()
    redis_server.client.replicaof("no", "one")
    redis_server.client.config_set("maxmemory", "50mb")
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    assert cache().startswith("warning: Redis throws keys away when its memory is full (allkeys-lru)")
    redis_server.freeze()
    try:
        assert "did not answer within 3 s" in cache()
    finally:
        redis_server.thaw()
    redis_server.stop()
    assert "Redis cannot be reached" in cache() and "Start it" in cache()


@pytest.mark.redis
def test_a_slow_redis_is_named(redis_server, settings):
    proxy = FaultProxy(redis_server.port)
    try:
        settings.REDIS_URL = f"redis://127.0.0.1:{proxy.port}/0"
        proxy.delay = 0.11
        assert cache().startswith("warning: Redis takes 2")
        proxy.delay = 0.27
        assert cache().startswith("problem: Redis takes 5")
    finally:
        proxy.close()


# Disks and keys ----------------------------------------------------------------------------------------------------


def disk():
    from kalimtak.doctor.disk import folders_can_be_written

    return lines(folders_can_be_written)


def test_a_full_disk_is_named(settings, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        settings.KALIMTAK_VAR, settings.KALIMTAK_MODELS_STORE = folder, tmp_path / "store"
        assert f"{folder}: disk full but for" in disk()[0]
        (folder / "ballast").write_bytes(b"\0" * shutil.disk_usage(folder).free)
        assert disk()[0].startswith(f"problem: {folder}: disk full → Free space")
        settings.KALIMTAK_VAR, settings.KALIMTAK_MODELS_STORE = tmp_path / "var", tmp_path
        assert any("small lie on another disk than the store" in line for line in disk())
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_that_is_no_folder_is_named(settings, tmp_path):
    settings.KALIMTAK_VAR, settings.KALIMTAK_MODELS_STORE = tmp_path / "var", tmp_path / "file"
    (tmp_path / "file").write_text("")
    assert any(line.startswith(f"problem: {tmp_path / 'file'}: cannot be written") for line in disk())


def test_keys_that_are_missing_short_or_readable_are_named(settings, tmp_path):
    from kalimtak.doctor.disk import keys_are_safe

    settings.KALIMTAK_VAR = tmp_path
    assert only(lines(keys_are_safe)).startswith("ok")
    settings.KALIMTAK_SUBJECT_KEY, settings.SECRET_KEY = "", "short"
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "secret_key").touch(mode=0o644)
    found = lines(keys_are_safe)
    assert "SECRET_KEY is too easy to guess" in found[0]
    assert "KALIMTAK_SUBJECT_KEY is missing" in found[1]
    assert f"secret_key can be read by others → `chmod go-rwx {tmp_path}/keys/secret_key`" in found[2]


def test_answers_that_wait_or_were_refused_are_named(settings, tmp_path):
    from interactions import spool
    from interactions.services import spool_folder
    from kalimtak.doctor.spool import answers_are_recorded

    settings.KALIMTAK_VAR = tmp_path
    assert only(lines(answers_are_recorded)) == "ok: empty → "
    file = spool.SpoolFile(spool_folder())
    row = {"id": "0199", "created_at": "2026-03-01T00:00:00+00:00"}
    file.append(spool.line_of([{"rows": [row], "memo": None}]))
    assert "1 answers wait" in only(lines(answers_are_recorded))
    assert "since 2026-03-01T00:00:00+00:00" in only(lines(answers_are_recorded))
    file.close()
    file.path.rename(file.path.with_suffix(".refused"))
    assert only(lines(answers_are_recorded)).startswith("problem: 1 files with answers that could not be recorded")
    settings.KALIMTAK_DISK_RESERVE = 2**60
    assert lines(answers_are_recorded)[-1].startswith("problem: nearly full")


def test_left_overs_of_crashes_are_named(world):
    from kalimtak.doctor.disk import nothing_is_left_over
    from registry import store

    assert only(lines(nothing_is_left_over)) == "ok: none → "
    age(store.staging_folder(uuid.uuid4(), 1), hours=1)
    (store.root() / "_orphans" / "emotion-3-abc").mkdir(parents=True)
    stale, orphans = lines(nothing_is_left_over)
    assert stale.startswith("warning: 1 left-overs") and "manage.py setup" in stale
    assert "1 folders in" in orphans


# Models ------------------------------------------------------------------------------------------------------------


def test_a_live_version_that_is_damaged_or_does_not_load_is_named(world):
    from kalimtak.doctor.models import live_versions_answer

    assert lines(live_versions_answer, quick=True) == ["ok: emotion/2: present → "]
    unloadable = only(lines(live_versions_answer))
    assert unloadable.startswith("problem: emotion/2 is live and") and "manage.py rollback emotion" in unloadable
    flip_a_bit(world)
    assert "serving/model.safetensors was altered" in only(lines(live_versions_answer))
    set_to(world.version, status="corrupt", problems=["lost"])
    assert "marked as corrupt; lost" in only(lines(live_versions_answer, quick=True))
    set_to(world.live, ended_at=timezone.now())
    assert lines(live_versions_answer)[0].startswith("warning: nothing is deployed for emotion")


# Workers and jobs --------------------------------------------------------------------------------------------------


@pytest.fixture
def pulse(settings):
    def pulse(cluster, *, seconds=0, **values):
        folder = Path(settings.KALIMTAK_VAR) / "run"
        folder.mkdir(parents=True, exist_ok=True)
        at = timezone.now() - timedelta(seconds=seconds)
        state = {"pid": os.getpid(), "host": settings.KALIMTAK_HOST, "pulse": at.isoformat(), "restarts": 0}
        (folder / f"qcluster-{cluster}.json").write_text(json.dumps(state | values))

    return pulse


def workers():
    from kalimtak.doctor.queue import workers_are_alive

    return lines(workers_are_alive)


def test_workers_with_a_pulse_are_alive(world, pulse):
    pulse("default")
    pulse("training")
    assert [line.partition(",")[0] for line in workers()] == ["ok: alive"] * 2


def test_workers_that_are_frozen_gone_or_restarted_are_named(world, pulse):
    pulse("default", seconds=600)
    pulse("training", pid=999_999_999)
    frozen, gone = workers()
    assert frozen.startswith("problem: frozen: no progress for 10 min")
    assert "its process 999999999 is gone" in gone and "Q_CLUSTER_NAME=training manage.py qcluster" in gone
    pulse("default", restarts=2, last_restart="no task got through")
    assert workers()[0].startswith("warning: alive, started again 2 times, the last time because no task got through")


def test_no_worker_anywhere_is_told_by_the_reaper(world):
    from django_q.models import Schedule

    assert workers()[0].startswith("warning: none yet on any machine")
    Schedule.objects.filter(name="reap").update(task="x")
    assert workers()[0].startswith("ok: none on this machine; the reaper is in time")
    Schedule.objects.filter(name="reap").update(next_run=timezone.now() - timedelta(minutes=10))
    assert any("the reaper is 10 min late: no worker, or a frozen one" in line for line in workers())
    Schedule.objects.filter(name__in=["reap", "curate"]).delete()
    assert any("missing: curate, reap" in line for line in workers())


def jobs_found():
    from kalimtak.doctor.queue import jobs_move

    return lines(jobs_move)


def test_jobs_that_move_are_counted(world):
    running(world, lease_until=timezone.now() + timedelta(minutes=1))
    new_job(world)
    assert only(jobs_found()) == "ok: 1 running, 1 waiting → "


def test_a_dead_trainer_and_an_expired_lease_are_named(world, settings):
    soon = timezone.now() + timedelta(minutes=4)
    running(world, kind="train", owner=f"{settings.KALIMTAK_HOST}:999999999", lease_until=soon)
    assert "its process died → Nothing to do: the reaper" in only(jobs_found())
    running(world, lease_until=timezone.now() - timedelta(minutes=10))
    assert any(line.startswith("problem: curate") and "ran out 10 min ago" in line for line in jobs_found())


def test_a_job_that_nobody_takes_up_is_named(world):
    set_to(new_job(world, kind="train", cluster="training"), created_at=timezone.now() - timedelta(minutes=30))
    line = only(jobs_found())
    assert line.startswith("problem: 1 wait in cluster training, the oldest for 30 min, and none runs")
    assert "Q_CLUSTER_NAME=training" in line


def test_a_queue_that_overflows_is_named(world):
    from django_q.models import OrmQ

    OrmQ.objects.bulk_create(OrmQ(key="default", payload="", lock=timezone.now()) for _ in range(1_001))
    assert "1001 wake-ups wait in cluster default" in only(jobs_found())


def test_a_poison_job_is_named_with_its_last_error(world):
    now = timezone.now()
    new_job(world, kind="import", state="quarantined", attempt=3, error="Its process died.\nmore", finished_at=now)
    line = only(jobs_found())
    assert line.startswith("warning: import") and "given up after 3 attempts: Its process died. →" in line


# Settings and web --------------------------------------------------------------------------------------------------


def test_settings_unfit_for_the_internet_are_named():
    from kalimtak.doctor.web import settings_are_sound

    assert "security.W008" in only(lines(settings_are_sound))


@pytest.fixture
def web_server():
    """Answers `/readyz` with what `answer` says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(json.dumps({"problems": ["database: cannot be reached"]}).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_web_server_that_is_ready_is_not_ready_or_is_not_there(web_server):
    from kalimtak.doctor.web import server_is_ready

    url = f"http://127.0.0.1:{web_server.server_port}"
    web_server.status = 200
    assert only(lines(server_is_ready, url=url)) == f"ok: {url} is ready → "
    web_server.status = 503
    assert f"{url} answers 503: database: cannot be reached" in only(lines(server_is_ready, url=url))
    assert "does not answer" in only(lines(server_is_ready, url="http://127.0.0.1:1"))
    assert "is no address" in only(lines(server_is_ready, url="localhost"))
    assert lines(server_is_ready) == []


# The command -------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_breaks_holds_nothing_up():
    from kalimtak.doctor import Options, examination

    let_go = threading.Event()

    def cache_hangs(options):
        let_go.wait(30)
        yield

    def disk_breaks(options):
        raise KeyError("free")
        yield

    began = time.monotonic()
    (hangs,) = examination._within(0.2, cache_hangs, Options())
    assert time.monotonic() - began < 5
    let_go.set()
    assert (hangs.state, hangs.check) == ("problem", "cache hangs")
    assert "no answer within" in hangs.what
    (breaks,) = examination._within(5, disk_breaks, Options())
    assert breaks.what == "could not be examined: KeyError: 'free'"


@pytest.mark.django_db(transaction=True)
def test_the_command_counts_what_it_found(settings, tmp_path):
    settings.KALIMTAK_VAR, settings.KALIMTAK_MODELS_STORE = tmp_path / "var", tmp_path / "store"
    settings.KALIMTAK_SUBJECT_KEY = ""
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", "--quick", stdout=out)
    assert ended.value.code == 1
    assert "problem\tkeys\tKALIMTAK_SUBJECT_KEY is missing" in out.getvalue()
    assert out.getvalue().splitlines()[-1].endswith("warnings.")
