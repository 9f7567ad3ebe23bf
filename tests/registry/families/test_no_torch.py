"""The web process answers with every family without ever importing torch or scikit-learn."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.families import FAMILIES
from tests.registry.families.material import Built

SERVE = textwrap.dedent(
    """
    import sys, django
    from pathlib import Path
    django.setup()
    import kalimtak.urls, kalimtak.wsgi
    from registry.families import load
    predictor = load(Path(sys.argv[1]))
    answer = predictor.predict([("what a lovely day",)])[0]
    assert abs(answer.probabilities.sum() - 1) < 1e-3
    print(sorted(name for name in ("sklearn", "torch", "transformers") if name in sys.modules))
    """
)
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_process_that_serves_a_family_imports_nothing_of_training(name: str, built: Callable[[str], Built]) -> None:
    command = [sys.executable, "-c", SERVE, str(built(name)[0])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
