"""Installations for the faults of processes and services: made once, cloned for each test, checked after each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Installation


def taught(installation: Installation) -> Installation:
    """Set up, with a data set and a live version `topic/1`."""
    installation.set_up()
    installation.manage("import_dataset", str(installation.folder / "items.csv"), "--classifier", "topic")
    installation.manage("train", "topic", "--deploy")
    return installation


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("faults") / "template", OMP_NUM_THREADS="1")
    yield taught(made)
    made.close()


@pytest.fixture
def installation(template: Installation, tmp_path: Path) -> Iterator[Installation]:
    """A clone; whatever a test did to it, it must be whole again afterwards."""
    cloned = template.clone(tmp_path / "installation")
    yield cloned
    cloned.kill_all()
    cloned.manage("fsck")
    cloned.close()
