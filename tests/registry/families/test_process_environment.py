"""What a training process is started with: libraries tuned, memory kept, and an operator's own word counts."""

import subprocess
import sys

from registry.families.process_environment import LIBRARIES, training_environment


def test_what_is_there_already_stays() -> None:
    given = {"HOME": "/home/olga", "GOMP_SPINCOUNT": "0", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert training_environment(given) == LIBRARIES | given


def test_a_process_starts_with_it_and_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ['GOMP_SPINCOUNT'])"],
        env=training_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [training_environment()["GOMP_SPINCOUNT"]]
    assert not done.stderr  # libraries complain there about what they do not know
