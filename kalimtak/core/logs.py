"""How a log line looks: `2025-10-26 12:00:00 | INFO     | Training started`, coloured on a terminal. Pure."""

import logging
import re
import sys

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


class LineFormatter(logging.Formatter):
    """One record, one line: control characters in a message are shown escaped, so user text cannot forge a line.

    A traceback follows on lines of its own, each beginning with blanks.
    """

    def __init__(self, colour: bool | None = None) -> None:
        super().__init__("%(asctime)s | %(levelname)s | %(message)s", "%Y-%m-%d %H:%M:%S")
        self.colour = sys.stderr.isatty() if colour is None else colour

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<8}"
        if self.colour:
            level = f"\x1b[{COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        message = CONTROL.sub(lambda match: repr(match[0])[1:-1], record.message)
        return f"{record.asctime} | {level} | {message}"

    def formatException(self, ei: object) -> str:
        return "\n".join("    " + line for line in super().formatException(ei).splitlines())  # type: ignore[arg-type]
