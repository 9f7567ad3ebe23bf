"""What asks a server and measures it: closed loops (the next request after an answer) and open ones (at fixed times).

A latency of an open loop counts from when its request was due, not from when it could be sent, so that a server that
stalls cannot hide the requests it kept waiting. Generators share the cores with the server, so each tells how much of
a core it took. They run in processes of their own; `Asker` can also be used within one.
"""

import asyncio
import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from support.process import measured

CONNECTIONS = 16
PATIENCE = 30.0  # seconds that the last answers are waited for
WRK = """
local bodies, n = {}, %d
for line in io.lines("%s") do bodies[#bodies + 1] = line end
wrk.method = "POST"
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, bodies[n %% #bodies + 1])
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("\\nOUTCOME %%d %%d %%d %%f %%f %%f\\n", summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
"""


@dataclass(frozen=True)
class Target:
    """Where to post, as what, and the bodies to post: a file with one a line."""

    port: int
    path: str
    bodies: str
    headers: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"

    def requests(self) -> list[bytes]:
        """Every request as it goes over the wire."""
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        head = f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{''.join(lines)}"
        return [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            for body in Path(self.bodies).read_bytes().splitlines()
        ]


class Kept(NamedTuple):
    """An answer with 200. `sent` is the monotonic time; what a server does not say is empty."""

    number: int
    sent: float
    label: str
    interaction_id: str
    model_version: str
    source: str

    @classmethod
    def of(cls, number: int, sent: float, body: bytes) -> "Kept":
        said = json.loads(body)
        return cls(number, sent, *(said.get(name, "") for name in cls._fields[2:]))


@dataclass
class Outcome:
    """What a generator saw. Latencies are in seconds, of each status those that it met, in the order of the answers."""

    seconds: float = 0.0
    cpu: float = 0.0  # of a core, while it ran
    cut: int = 0  # requests whose connection ended before the answer
    unanswered: int = 0  # given up when the time was over
    latencies: dict[int, list[float]] = field(default_factory=dict)
    in_time: int = 0  # answers with 200 that came before the time was over
    # From when a request was due until it was sent, where a connection was free: the generator's own delay.
    lags: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    kept: list[Kept] = field(default_factory=list)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Outcome":
        """From JSON, whose names of statuses are texts."""
        known = {name: values[name] for name in cls.__dataclass_fields__}
        latencies = {int(status): times for status, times in values["latencies"].items()}
        return cls(**known | {"latencies": latencies, "kept": [Kept(*each) for each in values["kept"]]})

    @property
    def statuses(self) -> Counter[int]:
        return Counter({status: len(times) for status, times in self.latencies.items()})

    @property
    def answers(self) -> int:
        return len(self.latencies.get(200, ()))

    @property
    def failed(self) -> int:
        return sum(self.statuses.values()) - self.answers + self.cut + self.unanswered

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds if self.seconds else 0.0

    def percentile(self, share: float, status: int = 200) -> float:
        return percentile(self.latencies.get(status, []), share)


def percentile(values: list[float], share: float) -> float:
    """NaN for nothing."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


# Closed loops ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """The sum of a closed loop: answers and failures, seconds, latencies in seconds, share of a core it took."""

    answers: int
    failed: int
    seconds: float
    p50: float
    p99: float
    cpu: float
    tool: str

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


def load(target: Target, seconds: float, *, connections: int = CONNECTIONS, offset: int = 0) -> Rate:
    """A closed loop: by wrk where it is there, else by our own generator, which costs more of the machine."""
    if shutil.which("wrk"):
        return _load_with_wrk(target, seconds, connections, offset)
    outcome = ask_closed(target, seconds, connections=connections, offset=offset)
    p50, p99 = outcome.percentile(0.5), outcome.percentile(0.99)
    return Rate(outcome.answers, outcome.failed, outcome.seconds, p50, p99, outcome.cpu, "own")


def _load_with_wrk(target: Target, seconds: float, connections: int, offset: int) -> Rate:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK % (offset, target.bodies))
        script.flush()
        headers = [part for name, value in target.headers.items() for part in ("-H", f"{name}: {value}")]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, *headers]
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(
            [*command, f"http://{target.host}:{target.port}{target.path}"], check=True, capture_output=True, text=True
        ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked, refused, broken, took, p50, p99 = map(float, said.partition("OUTCOME ")[2].split())
    cpu = (after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime) / took
    return Rate(int(asked - refused), int(refused + broken), took, p50, p99, cpu, "wrk")


def ask_closed(target: Target, seconds: float = 1e9, *, connections: int = CONNECTIONS, **options: Any) -> Outcome:
    """A closed loop of our own, for so many seconds or `total` requests; `keep` answers to look into them."""
    return _elsewhere("closed", target, seconds=seconds, connections=connections, **options)


# Open loops --------------------------------------------------------------------------------------------------------


def ask_open(target: Target, rate: float, seconds: float, *, connections: int = 64, **options: Any) -> Outcome:
    """`rate` requests a second for so many seconds, whatever the server does; then its answers are waited for.

    A request that is due while all connections are busy opens another, up to `most` of them.
    """
    return _elsewhere("open", target, rate=rate, seconds=seconds, connections=connections, **options)


def _elsewhere(kind: str, target: Target, **options: Any) -> Outcome:
    return Outcome.of(measured("support.load:run", kind=kind, target=asdict(target), **options))


def run(kind: str, target: dict[str, Any], connections: int, **options: Any) -> dict[str, Any]:
    """One loop in this process, from JSON to JSON."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    most, keep = options.pop("most", connections), options.pop("keep", False)
    asker = Asker(Target(**target), connections, most=most, keep=keep, offset=options.pop("offset", 0))
    asyncio.run(asker.keep_rate(**options) if kind == "open" else asker.keep_asking(**options))
    return asdict(asker.outcome)


class Asker:
    """Keep-alive connections to one server, and what came back over them."""

    def __init__(self, target: Target, connections: int, *, most: int = 0, keep: bool = False, offset: int = 0) -> None:
        self.outcome = Outcome()
        self._target, self._requests, self._offset = target, target.requests(), offset
        self._connections, self._most, self._keep = connections, max(most, connections), keep
        self._waiting: deque[tuple[int, float]] = deque()  # (number, due)
        self._free: deque[_Wire] = deque()  # the one that waited longest is next: all are used alike
        self._wires: set[_Wire] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._began = 0.0
        self._again = lambda: None  # called after each answer

    async def keep_rate(self, rate: float, seconds: float, patience: float = PATIENCE) -> None:
        total, number = round(rate * seconds), 0
        spent = await self._begin()
        while number < total:
            now = self._now()
            while number < total and number / rate <= now:
                self._waiting.append((number, number / rate))
                number += 1
            self._dispatch(measure=True)
            await asyncio.sleep(max(0.0, number / rate - self._now()))
        self.outcome.in_time = self.outcome.answers
        self._end(spent, seconds)
        await self._drain(patience)

    async def keep_asking(self, seconds: float, total: int = 10**9, patience: float = PATIENCE) -> None:
        number, over = 0, asyncio.Event()

        def ask_next() -> None:
            nonlocal number
            now = self._now()
            if now >= seconds or number >= total:
                over.set()
                return
            self._waiting.append((number, now))
            number += 1
            self._dispatch()

        spent = await self._begin()
        self._again = ask_next
        for _ in range(self._connections):
            ask_next()
        await asyncio.wait({asyncio.create_task(over.wait())}, timeout=seconds if total == 10**9 else None)
        self._again = lambda: None
        await self._drain(patience)
        self._end(spent, self._now())

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _begin(self) -> float:
        await asyncio.gather(*(self._open() for _ in range(self._connections)))
        self._began = time.monotonic()
        return time.process_time()

    def _end(self, spent: float, seconds: float) -> None:
        self.outcome.seconds = seconds
        self.outcome.cpu = (time.process_time() - spent) / max(self._now(), 1e-9)

    async def _drain(self, patience: float) -> None:
        """Wait for the answers that are due, then close."""
        until = time.monotonic() + patience
        while time.monotonic() < until and (self._waiting or any(wire.is_busy for wire in self._wires)):
            await asyncio.sleep(0.005)
            self._dispatch()
        self.outcome.unanswered = len(self._waiting) + sum(wire.is_busy for wire in self._wires)
        self._waiting.clear()
        for task in self._opening:
            task.cancel()
        for wire in list(self._wires):
            wire.forget()

    def _dispatch(self, *, measure: bool = False) -> None:
        while self._waiting and self._free:
            wire, (number, due) = self._free.popleft(), self._waiting.popleft()
            if measure:
                self.outcome.lags.append(self._now() - due)
            wire.ask(self._requests[(self._offset + number) % len(self._requests)], number, due, self._now())
        wanted = min(len(self._waiting), self._most - len(self._wires)) - len(self._opening)
        for _ in range(wanted):
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, wire = await loop.create_connection(lambda: _Wire(self), self._target.host, self._target.port)
        except OSError:
            await asyncio.sleep(0.02)  # nobody listens just now
            return
        self._wires.add(wire)
        self._free.append(wire)
        self._dispatch()

    def answered(self, wire: "_Wire", status: int, head: bytes, body: bytes) -> None:
        outcome = self.outcome
        outcome.latencies.setdefault(status, []).append(self._now() - wire.due)
        if status == 503 and b"\r\nretry-after:" not in head:
            outcome.without_retry_after += 1
        if self._keep and status == 200:
            outcome.kept.append(Kept.of(wire.number, self._began + wire.sent, body))
        if b"\r\nconnection: close" in head:
            wire.forget()
            self._wires.discard(wire)
        else:
            self._free.append(wire)
        self._again()
        if self._waiting:
            self._dispatch()

    def lost(self, wire: "_Wire") -> None:
        self._wires.discard(wire)
        if wire.is_busy:
            self.outcome.cut += 1
            self._again()
        elif wire in self._free:
            self._free.remove(wire)


class _Wire(asyncio.Protocol):
    """One connection: a request at a time. Parses no more of an answer than it must."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._came = b""
        self._head: bytes | None = None
        self._length = 0
        self._forgotten = False
        self.is_busy = False
        self.number, self.due, self.sent = 0, 0.0, 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, number: int, due: float, now: float) -> None:
        self.is_busy = True
        self.number, self.due, self.sent = number, due, now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._head is None:
            head, found, rest = self._came.partition(b"\r\n\r\n")
            if not found:
                return
            self._head, self._came = head.lower(), rest
            self._length = int(self._head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self._came) >= self._length:
            head, body = self._head, self._came
            self._head, self._came, self.is_busy = None, b"", False
            self._asker.answered(self, int(head[9:12]), head, body)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._forgotten:
            self._asker.lost(self)

    def forget(self) -> None:
        self._forgotten = True
        self._transport.abort()
