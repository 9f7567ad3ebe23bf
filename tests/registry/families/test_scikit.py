"""scikit-learn is loaded without pandas, which stays there for everybody else."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOAD = """
import gc, sys, threading
from registry.families.scikit import lean_import

with lean_import():
    {meanwhile}
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
print("pandas" in sys.modules, gc.isenabled())
import pandas
matrix = TfidfVectorizer().fit_transform(["rain and wind", "bread and soup"])
print(*SGDClassifier().fit(matrix, ["weather", "food"]).predict(matrix))
"""
ELSEWHERE = 'thread = threading.Thread(target=__import__, args=("pandas",)); thread.start(); thread.join()'


@pytest.mark.parametrize(("meanwhile", "is_loaded"), [("", False), (ELSEWHERE, True)], ids=["alone", "two threads"])
def test_pandas_is_loaded_by_whoever_wants_it(meanwhile: str, is_loaded: bool) -> None:
    command = [sys.executable, "-c", LOAD.format(meanwhile=meanwhile)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(is_loaded), "True", "weather", "food"]
