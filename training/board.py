"""A run's figures as TensorBoard reads them: one event file, written by the trainer beside what it reports.

The file is a series of `Event` messages in TensorFlow's record format, whose checksums are CRC-32C (RFC 3720, appendix
B.4), masked. TensorBoard's own writer imports five hundred modules, which a run of two seconds would feel; the messages
are its own. Whatever goes wrong here costs the event file and never the run. Knows nothing of Django.
"""

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_GROUPS = {"eval_": "eval/", "test_": "test/"}  # whatever else is a figure of the training
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected
_MASK_DELTA = 0xA282EAD8


class RunBoard:
    """Writes below `folder` from the first figure on. `problem` says in one line why it gave up, if it did."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stream: Any = None
        self._is_first = True
        self._last_step = 0
        self.problem = ""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of one moment, named as `registry.families.base.Reporter.metrics` has them."""
        self._try(lambda: self._figures(step, values))

    def outcome(self, values: Mapping[str, float]) -> None:
        """Figures on the golden set, beside the last step."""
        self._try(lambda: self._figures(self._last_step, {f"test_{name}": value for name, value in values.items()}))

    def text(self, title: str, markdown: str) -> None:
        """A page of text, such as the hyper-parameters."""
        self._try(lambda: self._text(title, markdown))

    def close(self) -> None:
        if self._stream is not None:
            self._try(self._stream.close)

    def _try(self, write: Callable[[], None]) -> None:
        if self.problem:
            return
        try:
            write()
        except Exception as error:
            self.problem = f"TensorBoard's event file could not be written: {type(error).__name__}: {error}"

    def _figures(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._is_first:  # an earlier attempt may have got further; TensorBoard then forgets what came after
            self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
            self._is_first = False
        self._last_step = max(self._last_step, step)
        shown = [Summary.Value(tag=_tag(name), simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=shown)))

    def _text(self, title: str, markdown: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
        self._write(Event(summary=Summary(value=[Summary.Value(tag=title, metadata=metadata, tensor=tensor)])))

    def _write(self, event: Any) -> None:
        if self._stream is None:
            self._open()
        event.wall_time = time.time()
        self._stream.write(record(event.SerializeToString()))
        self._stream.flush()

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 1000:018}.{socket.gethostname()}.{os.getpid()}"
        self._stream = (self._folder / name).open("xb")
        self._stream.write(record(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()))


def hyper_parameters(family: str, recipe: Mapping[str, Mapping[str, Any]]) -> str:
    """The recipe as a Markdown table, one line for each key."""
    rows = [
        (f"{section}.{name}", str(value).replace("|", "\\|"))
        for section, values in recipe.items()
        for name, value in values.items()
    ]
    lines = [("key", "value"), ("---", "---"), ("type", family), *rows]
    return "\n".join(f"| {key} | {value} |" for key, value in lines)


def record(data: bytes) -> bytes:
    """`data` framed: its length (u64), a checksum of that, the data, a checksum of it; all little-endian."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


def _tag(name: str) -> str:
    for prefix, group in _GROUPS.items():
        if name.startswith(prefix):
            return group + name.removeprefix(prefix)
    return f"train/{name}"


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_remainder(byte) for byte in range(256))
