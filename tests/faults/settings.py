"""The settings of an installation whose jobs can be held up and killed (see `tests.faults.handlers`)."""

from kalimtak.settings import *  # noqa: F403
from kalimtak.settings import KALIMTAK_JOBS

KALIMTAK_JOBS = KALIMTAK_JOBS | {
    "held": ("tests.faults.handlers.held", "default", False),
    "held_long": ("tests.faults.handlers.held", "default", True),
    "poison": ("tests.faults.handlers.poison", "default", False),
    "poison_long": ("tests.faults.handlers.poison", "default", True),
}
