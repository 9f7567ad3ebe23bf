"""The cache that the processes of one machine share."""

import subprocess
import sys
import textwrap
import time

import pytest

from kalimtak.core.cache import SqliteCache


@pytest.fixture
def cache(tmp_path):
    return SqliteCache(str(tmp_path / "cache.sqlite3"), {})


def test_values_are_kept_until_they_expire(cache):
    cache.set("a", {"x": [1, "é"]}, timeout=0.2)
    assert cache.get("a") == {"x": [1, "é"]}
    assert cache.add("a", 1) is False
    time.sleep(0.25)
    assert cache.get("a", "gone") == "gone"
    assert cache.add("a", 1) is True


def test_counting_and_forgetting(cache):
    with pytest.raises(ValueError, match="not found"):
        cache.incr("n")
    cache.set("n", 1)
    assert cache.incr("n", 4) == 5
    assert cache.touch("n", 60) is True
    assert cache.delete("n") is True
    assert cache.delete("n") is False
    cache.set("m", 1)
    cache.clear()
    assert cache.get("m") is None


def test_processes_count_together_without_losing_any(tmp_path):
    file = tmp_path / "cache.sqlite3"
    SqliteCache(str(file), {}).set("n", 0, None)
    program = textwrap.dedent(f"""
        from django.conf import settings
        settings.configure()
        from kalimtak.core.cache import SqliteCache
        cache = SqliteCache({str(file)!r}, {{}})
        for _ in range(500):
            cache.incr("n")
    """)
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert SqliteCache(str(file), {}).get("n") == 1500
