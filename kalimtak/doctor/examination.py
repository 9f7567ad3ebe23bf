"""Asks the checks in their order, each in a thread of its own with so much time and no more."""

import threading
from collections.abc import Iterator

from django.db import connections

from kalimtak.core.commands import Report, silent
from kalimtak.doctor import cache, database, disk, models, queue, spool, web
from kalimtak.doctor.diagnosis import PROBLEM, SKIPPED, Check, Diagnosis, Options, first_line, problem

SECONDS = 15.0
LONG_SECONDS = 300.0  # to load every live version
FIRST: tuple[Check, ...] = (database.database_answers, database.tables_are_up_to_date)
WITHOUT_DATABASE: tuple[Check, ...] = (
    cache.cache_answers,
    disk.folders_can_be_written,
    disk.keys_are_safe,
    spool.answers_are_recorded,
    web.settings_are_sound,
    web.server_is_ready,
)
WITH_DATABASE: tuple[Check, ...] = (
    database.clocks_agree,
    disk.nothing_is_left_over,
    models.live_versions_answer,
    queue.workers_are_alive,
    queue.jobs_move,
)
CHECKS: tuple[Check, ...] = (*FIRST, *WITH_DATABASE, *WITHOUT_DATABASE)


def examine(options: Options, *, report: Report = silent, seconds: float = SECONDS) -> Iterator[Diagnosis]:
    """Every diagnosis, as soon as it is made. What needs the database is skipped where that cannot be used."""
    is_unusable = False
    for index, check in enumerate(CHECKS):
        name = check.__name__.replace("_", " ")
        report(index / len(CHECKS), name)
        if is_unusable and check in (*FIRST, *WITH_DATABASE):
            yield Diagnosis(SKIPPED, name, "not examined: the database cannot be used")
            continue
        limit = LONG_SECONDS if check is models.live_versions_answer else seconds
        for diagnosis in _within(limit, check, options):
            is_unusable = is_unusable or (check in FIRST and diagnosis.state == PROBLEM)
            yield diagnosis


def _within(seconds: float, check: Check, options: Options) -> list[Diagnosis]:
    """What `check` said within so many seconds. One that goes on is left behind; the process may end without it."""
    said: list[Diagnosis] = []
    name = check.__name__.replace("_", " ")

    def ask() -> None:
        try:
            said.extend(check(options))
        except Exception as error:
            what = f"could not be examined: {type(error).__name__}: {first_line(error)}"
            said.append(problem(name, what, "If nothing above explains it, this is a bug; please report it."))
        finally:
            connections.close_all()

    thread = threading.Thread(target=ask, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        remedy = "Something it asks is frozen or overloaded; look at the lines above and at the machine's load."
        return [*said, problem(name, f"no answer within {seconds:.0f} s", remedy)]
    return said
