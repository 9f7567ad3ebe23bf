"""The bytes of an uploaded file: what they are, unpacked within a cap, line by line. Pure: no Django."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FORMATS = {"csv": "csv", "tsv": "tsv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet"}
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "an old office document",
    b"SQLite format 3\x00": "an SQLite database",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
}
BOM = b"\xef\xbb\xbf"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # what a spreadsheet would run
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r"))
MOST_CONTROLS = 0.1  # of the first bytes, in what is still text
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What a text file may be written in, by Python's names; the first is the one that is taken without being told.
ENCODINGS = {
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "cp1252": "Windows-1252 (Western European)",
    "iso8859-15": "ISO 8859-15 (Western European)",
    "cp1250": "Windows-1250 (Central European)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp1256": "Windows-1256 (Arabic)",
    "shift_jis": "Shift JIS (Japanese)",
    "gb18030": "GB 18030 (Chinese)",
}


class ImportRefused(Exception):
    """Nothing of the file can be loaded; the message is one line that names the remedy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps in bytes: the file once unpacked, one line of text, a JSON file as a whole; and columns in a table."""

    unpacked: int = 2 * 2**30
    line: int = 2**20
    json: int = 64 * 2**20
    columns: int = 1_000


@dataclass(frozen=True, slots=True)
class RowError:
    """Why the row that begins on `line` (from 1; for JSON and Parquet the number of the record) was left out."""

    line: int
    reason: str


# Recognising -----------------------------------------------------------------------------------------------------


def named_format(name: str) -> tuple[str, bool]:
    """`reviews.csv.gz` → ("csv", True)."""
    parts = Path(name).name.lower().split(".")
    is_gzipped = len(parts) > 1 and parts[-1] == "gz"
    extension = parts[-2] if is_gzipped and len(parts) > 2 else parts[-1]
    if len(parts) < 2 or extension not in FORMATS:
        allowed = ", ".join(f".{known}" for known in FORMATS)
        raise ImportRefused(f"{name}: the name must end in one of {allowed}, with .gz after it if packed.")
    return FORMATS[extension], is_gzipped


def check_content(name: str, kind: str, head: bytes) -> None:
    """Refuse a file whose first bytes say something else than its name."""
    if not head:
        raise ImportRefused(f"{name} is empty.")
    found = next((what for magic, what in MAGIC.items() if head.startswith(magic)), None)
    if found == "Parquet" and kind == "parquet":
        return
    if found:
        raise ImportRefused(f"{name} is {found} by its content; give it the name it deserves, or convert it.")
    if kind == "parquet":
        raise ImportRefused(f"{name} is not Parquet by its content; give it the name it deserves.")
    if b"\x00" in head and not _is_text_with_nul(kind, head):
        raise ImportRefused(f"{name} is no text file; save it as UTF-8 text.")
    begins = head.removeprefix(BOM).lstrip()[:1]
    if kind in ("csv", "tsv") and begins in (b"{", b"["):
        raise ImportRefused(f"{name} looks like JSON; call it .json or .jsonl.")
    if kind in ("json", "jsonl") and begins not in ((b"{", b"[") if kind == "json" else (b"{",)):
        wanted = "a list or an object" if kind == "json" else "one object on each line"
        raise ImportRefused(f"{name} does not look like {kind.upper()}: expected {wanted}.")


def _is_text_with_nul(kind: str, head: bytes) -> bool:
    """Whether a file that begins so is text all the same, some row of which holds a NUL: readers know what to do.

    JSON is parsed whole, and a table has no name for a column with one in its name.
    """
    if kind == "json" or (kind != "jsonl" and b"\x00" in head.partition(b"\n")[0]):
        return False
    controls = len(head) - len(head.translate(None, _CONTROLS))
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(head)  # which may end within a character
    except UnicodeDecodeError:
        return False
    return controls <= len(head) * MOST_CONTROLS


def find_encoding(path: Path, kind: str, is_gzipped: bool, limits: Limits) -> str:
    """What the file says it is written in, by its byte order mark; UTF-8 where it says nothing."""
    if kind == "parquet":
        return ""
    with unpacked(path, is_gzipped, limits) as stream:
        return "utf-16" if stream.read(2) in UTF16_MARKS else "utf-8"


def check_encoding(encoding: str) -> None:
    """Raises `ImportRefused` for one that is not among `ENCODINGS`."""
    if encoding and encoding not in ENCODINGS:
        raise ImportRefused(f"{encoding[:40]!r} is not an encoding that is read here; use {', '.join(ENCODINGS)}.")


def find_delimiter(path: Path, kind: str, is_gzipped: bool, limits: Limits, encoding: str = "") -> str:
    """The character that splits the first line of a CSV into the most columns."""
    if kind != "csv":
        return "\t"
    with unpacked(path, is_gzipped, limits, encoding) as stream:
        header = stream.readline(limits.line).decode("utf-8", "replace")
    outside_quotes = "".join(header.split('"')[::2])
    return max(",;\t|", key=outside_quotes.count)


# Bytes and lines -------------------------------------------------------------------------------------------------


class _Capped(io.RawIOBase):
    """A stream that refuses to yield more than `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._left, self._limit = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        self._left -= len(block)
        if self._left < 0:
            raise ImportRefused(f"The file is over {self._limit} bytes once unpacked; split it.")
        buffer[: len(block)] = block
        return len(block)


class _Transcoded(io.RawIOBase):
    """A text stream of any encoding as UTF-8, block by block."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._stream.read(2**16)
            try:
                text = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise ImportRefused(f"The file is not {ENCODINGS[self._encoding]}; choose another encoding.") from error
            self._ready = text.encode("utf-8", "surrogatepass")
            if not block:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


@contextmanager
def unpacked(path: Path, is_gzipped: bool, limits: Limits, encoding: str = "") -> Iterator[IO[bytes]]:
    """The content of the file, unpacked, capped and as UTF-8; damage to the packing is an `ImportRefused`.

    `encoding` is what a text file is written in; "" leaves its bytes as they are.
    """
    with path.open("rb") as raw:
        if is_gzipped and raw.read(2) != b"\x1f\x8b":
            raise ImportRefused("The name ends in .gz, but the file is not gzipped; remove .gz from the name.")
        raw.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_gzipped else raw  # type: ignore[assignment]
        try:
            content: IO[bytes] = io.BufferedReader(_Capped(stream, limits.unpacked), 2**16)
            if encoding not in ("", "utf-8"):
                content = io.BufferedReader(_Transcoded(content, encoding), 2**16)
            yield content
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ImportRefused(f"The gzip file is damaged or cut off ({error}); upload it again.") from error


def text_lines(stream: IO[bytes], name: str, limit: int) -> Iterator[tuple[int, str] | RowError]:
    """Numbered lines, decoded one by one so that a stray byte is found on its line."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > limit:
            while line and not line.endswith(b"\n"):
                line = stream.readline(2**16)
            yield RowError(number, f"The line is over {limit} bytes.")
            continue
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ImportRefused(
                f"Line {number} of {name} is not UTF-8 (byte 0x{line[error.start]:02x}); "
                "save the file as UTF-8, or say which encoding it has."
            ) from error
