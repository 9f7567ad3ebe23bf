"""The base of our management commands: one clear line on failure, an example in `--help`, progress and tables."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from .errors import KalimtakError

RowT = TypeVar("RowT")


class Report(Protocol):
    """Says how far something is, 0 to 1, and what it is doing."""

    def __call__(self, fraction: float, note: str = "") -> None: ...


class KalimtakCommand(BaseCommand):
    """Raise `KalimtakError` or `CommandError` to end with one line on stderr and exit status 1; usage errors exit 2.

    `example` is shown at the end of `--help`.
    """

    example = ""
    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("epilog", f"Example:\n  {self.example}" if self.example else None)
        kwargs.setdefault("formatter_class", _Formatter)
        return super().create_parser(prog_name, subcommand, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except KalimtakError as error:
            if options.get("traceback"):
                raise
            raise CommandError(one_line(error)) from error
        except (OperationalError, ProgrammingError) as error:
            if options.get("traceback"):
                raise
            remedy = "is the database there, and was `manage.py setup` run?"
            raise CommandError(f"{str(error).splitlines()[0]} ({remedy})") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped.", returncode=130) from None
        except BrokenPipeError:  # `… | head`
            sys.stderr.close()
            raise SystemExit(0) from None
        except OSError as error:  # a file or folder that was named on the command line
            if options.get("traceback") or error.filename is None:
                raise
            raise CommandError(f"{error.filename}: {error.strerror}.") from error

    @contextmanager
    def progress(self, description: str) -> Iterator[Report]:
        """A function `(fraction, note)` that moves a bar on a terminal and says nothing elsewhere."""
        if not sys.stderr.isatty():
            yield silent
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(description, total=1.0, note="")

            def report(fraction: float, note: str = "") -> None:
                bars.update(task, completed=fraction, note=note)

            yield report

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A ruled table on a terminal, lines of tab-separated columns elsewhere."""
        if not getattr(self.stdout, "isatty", bool)():
            for row in (columns, *rows):
                self.stdout.write("\t".join(plain(cell) for cell in row))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        Console().print(table)


def silent(fraction: float, note: str = "") -> None:
    """A report to nobody."""


def watched(rows: Iterable[RowT], report: Report) -> Iterator[RowT]:
    """The rows, with a word at every thousandth."""
    for number, row in enumerate(rows, start=1):
        if number % 1_000 == 0:
            report(0.0, f"{number:,} rows")
        yield row


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the example."""


def plain(cell: Any) -> str:
    """Text without control characters: what users wrote must not steer a terminal."""
    return "".join(character if character.isprintable() else " " for character in str(cell))


def one_line(error: KalimtakError) -> str:
    """The message, then what `fields` adds to it."""
    places = {place: " ".join(messages) for place, messages in error.fields.items()}
    details = "; ".join(f"{place}: {message}" for place, message in places.items() if message not in error.message)
    return " ".join(f"{error.message} {details}".split())
