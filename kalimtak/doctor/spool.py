"""Do answers wait to be recorded, or were some set aside?"""

from collections.abc import Iterator

from interactions import spooling
from interactions.services import spool_folder
from kalimtak.doctor.diagnosis import Diagnosis, Options, ok, problem, warning


def answers_are_recorded(options: Options) -> Iterator[Diagnosis]:
    """Nothing lies in the spool of this machine."""
    waiting = spooling.waiting()
    if waiting.answers:
        what = f"{waiting.answers} answers wait in {spool_folder()} since {waiting.since}"
        yield warning("spool", what, "Once the database answers, a web process or the worker records them by itself.")
    if waiting.set_aside:
        what = f"{waiting.set_aside} files with answers that could not be recorded in {spool_folder()}"
        yield problem("spool", what, "`manage.py fsck --quick` says why, and what to do with each.")
    if not spooling.can_go_on():
        what = "nearly full; without a database, requests would soon be refused"
        yield problem("spool", what, "Bring the database back, free its disk, or raise KALIMTAK_SPOOL_BYTES.")
    elif not waiting.answers and not waiting.set_aside:
        yield ok("spool", "empty")
