"""Where TensorBoard finds the runs of this machine: `var/tensorboard/<classifier>/run-<number>/`.

An event file outlives its run, so that runs can be compared; the newest of each classifier are kept.
"""

import re
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from django.conf import settings

from registry.models import Classifier
from registry.recipe import Recipe
from training.board_server import BoardServer
from training.models import TrainingRun

BOARDS_KEPT = 30  # runs of one classifier


def boards_root() -> Path:
    return Path(settings.KALIMTAK_VAR) / "tensorboard"


def board_folder(run: TrainingRun) -> Path:
    return boards_root() / run.classifier.slug / f"run-{run.pk}"


def boards_sweep(classifier: Classifier) -> int:
    """Remove the event files of all but the newest runs of `classifier`; of how many runs they were."""
    named = (re.fullmatch(r"run-(\d+)", folder.name) for folder in (boards_root() / classifier.slug).glob("run-*"))
    numbers = sorted(int(match[1]) for match in named if match)
    stale = numbers[:-BOARDS_KEPT]
    for number in stale:
        shutil.rmtree(boards_root() / classifier.slug / f"run-{number}", ignore_errors=True)
    return len(stale)


def board_beside(run: TrainingRun, folder: Path) -> AbstractContextManager[BoardServer | None]:
    """TensorBoard for as long as `run` trains, where its recipe says `auto_start`; its log goes into `folder`."""
    config = Recipe.from_dict(run.recipe, model_type=run.family).tensorboard
    if not config.auto_start:
        return nullcontext()
    return BoardServer(boards_root() / run.classifier.slug, config.port, folder / "tensorboard.log")
