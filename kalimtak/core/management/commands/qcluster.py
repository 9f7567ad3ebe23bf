"""`manage.py qcluster`: workers of the queue, under a watchdog. Replaces django-q2's command of that name."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand


class Command(KalimtakCommand):
    help = "Runs a cluster of queue workers, and starts it again where it dies or gets stuck; TERM lets it finish."
    example = "Q_CLUSTER_NAME=training manage.py qcluster"

    def add_arguments(self, parser: CommandParser) -> None:
        from kalimtak.core import watchdog

        parser.add_argument("-n", "--name", help="the cluster (default: Q_CLUSTER_NAME, or default)")
        parser.add_argument("--run-once", action="store_true", help="do what waits in memory, then end; no watchdog")
        parser.add_argument(
            "--stuck-after",
            type=float,
            default=watchdog.STUCK_SECONDS,
            metavar="SECONDS",
            help="without progress though a worker is free (default: %(default).0f)",
        )
        parser.add_argument(
            "--grace",
            type=float,
            default=watchdog.GRACE_SECONDS,
            metavar="SECONDS",
            help="for running tasks after TERM (default: %(default).0f)",
        )
        parser.add_argument(
            "--report-to", nargs=2, type=float, help=argparse.SUPPRESS
        )  # how the watchdog calls its child

    def handle(self, *args: Any, **options: Any) -> None:
        from django_q import conf

        from kalimtak.core import cluster
        from kalimtak.core.watchdog import Watchdog

        name = options["name"] or os.environ.get("Q_CLUSTER_NAME") or str(settings.Q_CLUSTER["name"])
        if options["report_to"] is not None:
            descriptor, pulse_seconds = options["report_to"]
            cluster.run(int(descriptor), pulse_seconds)
            return
        if options["run_once"]:
            if name != str(conf.Conf.CLUSTER_NAME):  # read when this process started
                raise CommandError(f"With --run-once, name the cluster by the environment: Q_CLUSTER_NAME={name}.")
            cluster.run(os.pipe()[1], options["stuck_after"] / 3, once=True)
            return
        command = [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "qcluster", "--report-to"]
        Watchdog(command, name, stuck=options["stuck_after"], grace=options["grace"]).run()
