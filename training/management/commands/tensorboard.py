"""`manage.py tensorboard`: TensorBoard over the runs."""

import signal
import threading
from typing import Any

from django.core.management.base import CommandError, CommandParser

from kalimtak.core.commands import KalimtakCommand
from registry.recipe import TensorboardConfig
from training.board_server import BoardFailed, serve
from training.services.boards import boards_root


class Command(KalimtakCommand):
    help = "Starts TensorBoard over the training runs of this installation, on this machine alone; Ctrl-C stops it."
    example = "manage.py tensorboard --port 6007"

    def add_arguments(self, parser: CommandParser) -> None:
        default = TensorboardConfig().port
        parser.add_argument("--port", type=int, default=default, metavar="N", help=f"default: {default}; 0: a free one")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["port"] <= 65535:
            raise CommandError("--port: expected a number from 0 to 65535.", returncode=2)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        runs = sum(1 for _ in boards_root().glob("*/*"))
        try:
            address = serve(boards_root(), options["port"])
        except BoardFailed as error:
            raise CommandError(str(error)) from error
        counted = f"{runs} run{'' if runs == 1 else 's'}" if runs else "no run yet; `manage.py train SLUG` makes one"
        self.stdout.write(f"TensorBoard is at {address} ({counted}). Ctrl-C stops it.")
        self.stdout.flush()
        stop.wait()
        self.stdout.write("Stopped.")
