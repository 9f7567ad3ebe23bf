"""What all tests share: a folder of their own for everything a run writes, and the standing cast.

Olga operates (superuser), Rami reviews (annotator), Tala trains, Dina deploys, Nadia must see nothing (staff without
a role); Carla calls the API with a key.
"""

import atexit
import gc
import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest

SCRATCH = Path(tempfile.mkdtemp(prefix="kalimtak-tests-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
os.environ.update(
    KALIMTAK_VAR=str(SCRATCH / "var"),
    KALIMTAK_MODELS_STORE=str(SCRATCH / "store"),
    SECRET_KEY="test-key-" + "x" * 50,
    KALIMTAK_SUBJECT_KEY="subject-key-" + "y" * 40,
    HF_HUB_OFFLINE="1",
    OMP_NUM_THREADS="1",
    DATABASE_URL=os.environ.get("KALIMTAK_TEST_DATABASE_URL") or f"sqlite:///{SCRATCH / 'test.sqlite3'}",
    REDIS_URL=os.environ.get("KALIMTAK_TEST_REDIS_URL", ""),
    DEBUG="0",
)
os.environ["DJANGO_SETTINGS_MODULE"] = "kalimtak.settings"
# A shell has what it runs in the background ignore Ctrl-C, and all that it starts in turn; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("KALIMTAK_ANONYMOUS", "KALIMTAK_DATASET_HOSTS", "KALIMTAK_TRUSTED_PROXIES", "KALIMTAK_CORS_ORIGINS"):
    os.environ.pop(name, None)

from django.conf import settings  # noqa: E402  (only now does the environment say what the tests need)

ONLY_DATABASE = os.environ.get("KALIMTAK_TEST_ONLY_DATABASE") == "1"  # the second run, on another database

assert settings.SECRET_KEY  # reads the settings, so that pytest-django sets Django up
# Pages are tested without `collectstatic`; the journey against real processes runs it.
settings.STORAGES = {
    **settings.STORAGES,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
Path(settings.STATIC_ROOT).mkdir(exist_ok=True)
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a slow one takes 0.4 s of a core


def emptied_by_delete(self, style, tables, *, reset_sequences=False, allow_cascade=False) -> list[str]:
    """What empties all tables after a test with transactions of its own.

    Django truncates them, which makes new files for each table and index: 0.3 s and more for the handful of rows that
    a test leaves. Foreign keys are checked at the end, so the order makes no difference.
    """
    return [f"DELETE FROM {self.quote_name(table)};" for table in tables]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    from django.db.backends.postgresql.operations import DatabaseOperations

    DatabaseOperations.sql_flush = emptied_by_delete


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say what `clock` means, before marks choose; leave out what this pass need not try.

    The second pass of `tests/suite.py` is for what a database can matter to.

    pytest-django lets no test near a database that did not ask for one, so such a test says on PostgreSQL what it said
    on SQLite; unless it starts processes, which have a database of their own.
    """
    if ONLY_DATABASE:
        kept = [item for item in items if asks_for_a_database(item) or starts_processes(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    for item in items:
        if item.get_closest_marker("clock"):
            item.add_marker("alone")
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))
        if item.get_closest_marker("alone") and not (ONLY_DATABASE and item.get_closest_marker("own_servers")):
            note(item.nodeid, "alone")


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end, and is looked through for garbage no more."""
    gc.collect()
    gc.freeze()


def asks_for_a_database(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    return (
        bool(fixtures & {"db", "transactional_db", "live_server"}) or item.get_closest_marker("django_db") is not None
    )


def starts_processes(item: pytest.Item) -> bool:
    folder = item.path.parent.name
    return folder in {"browser", "care", "contract", "faults", "platform", "tests"} or any(
        word in item.path.read_text(encoding="utf-8") for word in ("tests.installation", "subprocess")
    )


BEFORE: Counter[str] = Counter()  # seconds that setting a test up took


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell `tests/suite.py` what became of each test: passed, failed, error (before or after it) or skipped; and how
    long it took, fixtures of its own included."""
    if report.outcome == "rerun":
        return
    if report.when == "setup":
        BEFORE[report.nodeid] += report.duration
    if (report.when != "call" and report.passed) or (report.when == "teardown" and not report.failed):
        return
    outcome = "error" if report.failed and report.when != "call" else report.outcome
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    marks = sorted({"postgres", "redis", "browser"} & set(report.keywords))
    seconds = round(report.duration + BEFORE.pop(report.nodeid, 0), 3)
    note(report.nodeid, outcome, marks=marks, reason=reason, seconds=seconds)


def note(test: str, outcome: str, **more: object) -> None:
    """A line for `tests/suite.py`, if it runs this."""
    if notes := os.environ.get("KALIMTAK_TEST_OUTCOMES"):
        with Path(notes).open("a") as file:
            file.write(json.dumps({"id": test, "outcome": outcome} | more) + "\n")
