"""Ten minutes of steady load with deployments, rollbacks, kills and database restarts in between.

The load is open: requests are due at fixed times, half as many a second as the server was measured to answer at most,
and a latency counts from when its request was due, so that a stall hides nothing. Afterwards the rows are compared
with the answers. Fails where an answer has no row, or two; where a row is there that nobody could have been answered;
where a status other than 200, 429 and 503 was seen; where the queue does not work any more, `fsck` finds something,
or a rollback took five seconds or more with queue, Redis and trainer down.

    python bench/soak.py                                  # a PostgreSQL server of its own, else SQLite
    python bench/soak.py --minutes 60 --seed 7 --database postgres://user@host:5432/name
    python bench/soak.py --check                          # a few seconds of all this
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from support.console import ROOT, Console
from support.installation import HELLO, make_installation, serving
from support.load import Outcome, Target, ask_closed, ask_open
from support.postgres import postgres, postgres_binaries
from support.texts import sentences, write_bodies

CHECK_ROWS = 500  # what a check trains on: it is about faults
TEXTS = 20_000
CLASSIFIER = "intent"
PATH = f"/api/classify/{CLASSIFIER}"
CONNECTIONS = 48
ALLOWED = {200, 429, 503}
ROLLBACK_SECONDS = 5.0
AWAY_SECONDS = (0.5, 4.0)  # how long the database stays away


def main():
    options = arguments()
    seconds = 10.0 if options.check else options.minutes * 60
    with ExitStack() as stack:
        database = stack.enter_context(database_of(options))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kalimtak-soak-")))
        rows = CHECK_ROWS if options.check else None
        site = make_installation(folder, [CLASSIFIER], rows=rows, database=database.url)
        server = stack.enter_context(serving(site))
        target = Target(server.port, PATH, str(write_bodies(folder / "bodies.jsonl", sentences(TEXTS))), server.headers)
        soak = stack.enter_context(running(Soak(server, target, database, random.Random(options.seed))))
        soak.ask(f"second_version({CLASSIFIER!r})")
        peak = ask_closed(target, 2.0 if options.check else 10.0)
        rate = options.rate or max(peak.rate / 2, 1.0)
        print(f"peak {peak.rate:.0f} requests/s, load {rate:.0f} requests/s for {seconds:.0f} s")
        print(
            f"database {database.name}, seed {options.seed}, {server.environment.get('WEB_CONCURRENCY')} web processes"
        )
        soak.forget_what_was_before()
        soak.shake(rate, seconds, check=options.check)
        faults = soak.table() + soak.compare_rows() + soak.queue_works()
        faults += soak.rollback_alone()
        faults += [f"fsck: {finding}" for finding in soak.ask("[str(each) for each in fsck.find()]")]
    sys.exit("\n".join(faults) if faults else 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, help="requests a second (default: half of the measured peak)")
    parser.add_argument(
        "--database", default="auto", help="postgres (a server of its own), sqlite, a URL, or auto: the first there is"
    )
    parser.add_argument("--check", action="store_true", help="a few seconds, for continuous integration")
    return parser.parse_args()


# Databases ---------------------------------------------------------------------------------------------------------


class Database:
    """One that cannot be restarted from here: SQLite, or somebody's server."""

    def __init__(self, name, url):
        self.name, self.url = name, url

    restart = None


@contextmanager
def database_of(options):
    """The database of the choice; its `url` is empty for SQLite."""
    choice, binaries = options.database, postgres_binaries()
    if choice == "auto":
        choice = "postgres" if binaries else "sqlite"
    if choice == "sqlite":
        yield Database("SQLite", "")
    elif choice != "postgres":
        yield Database("PostgreSQL, not restarted", choice)
    else:
        with postgres(binaries) as database:
            yield database


# The soak ------------------------------------------------------------------------------------------------------------


@contextmanager
def running(soak):
    soak.start()
    try:
        yield soak
    finally:
        soak.stop()


class Soak:
    """The load on one server, what is done to it meanwhile, and what came of it."""

    def __init__(self, server, target, database, chance):
        self.server, self.target, self.database, self.chance = server, target, database, chance
        self.survived = Counter()
        self.outcome, self.live, self.problems = Outcome(), 1, []

    def start(self):
        self.console = Console(self.server.environment)
        self.web = self.server.process
        self.queue = self.start_queue()

    def start_queue(self):
        command = [sys.executable, str(ROOT / "manage.py"), "qcluster", "--stuck-after", "5"]
        return psutil.Popen(command, env=self.server.environment, cwd=ROOT, stderr=subprocess.DEVNULL)

    def stop(self):
        self.console.end()
        with suppress(psutil.NoSuchProcess):
            self.queue.kill()
            self.queue.wait()

    def ask(self, expression):
        return self.console.ask(expression)

    def forget_what_was_before(self):
        self.before = set(self.ask("rows()"))
        self.memory_before = self.memory()

    def memory(self):
        """Resident megabytes of all web processes."""
        return sum(each.memory_info().rss for each in (self.web, *self.web.children())) / 1e6

    # Load

    def shake(self, rate, seconds, *, check):
        """Ask at `rate` for `seconds` and carry out the schedule meanwhile."""
        load = threading.Thread(target=self.load, args=(rate, seconds))
        began = time.monotonic() + 0.2
        load.start()
        for at, name, action in self.schedule(seconds, check):
            time.sleep(max(0.0, began + at - time.monotonic()))
            try:
                action()
                self.survived[name] += 1
            except Exception as error:
                self.problems.append(f"{name} at {at:.0f} s: {error!r}")
        load.join()

    def load(self, rate, seconds):
        self.outcome = ask_open(self.target, rate, seconds, connections=CONNECTIONS, patience=60.0, keep=True)

    # What is done to it

    def schedule(self, seconds, check):
        """(second, name, action), at random times from a seed, the last one early enough to show its effect."""
        actions = {
            "deployment or rollback": self.deploy_or_rollback,
            "web worker killed": self.kill_web_worker,
            "queue process killed": self.kill_queue_process,
        }
        if self.database.restart:
            actions["PostgreSQL restarted"] = self.restart_database
        if check:
            gap = seconds / (len(actions) + 2)
            return [((index + 0.5) * gap, *action) for index, action in enumerate(actions.items())]
        planned, at = [], 5.0
        while at < seconds - 15:
            planned.append((at, *self.chance.choice(list(actions.items()))))
            at += self.chance.uniform(4, 12)
        return planned

    def deploy_or_rollback(self):
        """From version 1 to 2 by a deployment, back by a rollback."""
        if self.live == 2:
            self.ask(f"rollback({CLASSIFIER!r})")
        else:
            self.ask(f"deploy({CLASSIFIER!r}, 2)")
        self.live = 3 - self.live

    def kill_web_worker(self):
        self.chance.choice(self.web.children()).send_signal(signal.SIGKILL)

    def kill_queue_process(self):
        """Any of them but the watchdog, which the service manager keeps."""
        if below := self.queue.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                self.chance.choice(below).send_signal(signal.SIGKILL)

    def restart_database(self):
        self.database.restart(self.chance.choice(["fast", "immediate"]), self.chance.uniform(*AWAY_SECONDS))

    # What came of it

    def table(self):
        """Print it; what is wrong with it."""
        outcome = self.outcome
        lost = outcome.cut + outcome.unanswered
        print(f"{'requests':<24}{sum(outcome.statuses.values()) + lost:>10}")
        for status, count in sorted(outcome.statuses.items()):
            print(f"{f'  answered with {status}':<24}{count:>10}")
        print(f"{'  connection cut':<24}{lost:>10}")
        for share in (0.5, 0.95, 0.99):
            print(f"{f'p{share * 100:.0f}':<24}{outcome.percentile(share) * 1000:>10.1f} ms")
        print(f"{'generator, of a core':<24}{outcome.cpu:>10.0%}")
        for name, count in sorted(self.survived.items()):
            print(f"{name:<24}{count:>10}")
        print(f"{'memory of web, MB':<24}{self.memory_before:>10.0f} before, {self.memory():.0f} after")
        odd = {status: count for status, count in outcome.statuses.items() if status not in ALLOWED}
        faults = [f"Statuses that must not be: {odd}"] if odd else []
        if not outcome.answers:
            faults.append("Nothing was answered.")
        return faults + self.problems

    def compare_rows(self):
        ids = [answer.interaction_id for answer in self.outcome.kept]
        answered, deadline = set(ids), time.monotonic() + 60
        while not answered <= set(self.ask("rows()")) and time.monotonic() < deadline:
            time.sleep(0.5)  # what was answered without the database is recorded just now
        rows = set(self.ask("rows()")) - self.before
        missing, extra = answered - rows, rows - answered
        lost = self.outcome.cut + self.outcome.unanswered + self.outcome.statuses[503]
        print(f"{'rows':<24}{len(rows):>10}, {len(extra)} of them for answers that were lost")
        faults = [f"{len(missing)} answers have no row"] if missing else []
        if len(answered) != len(ids):
            faults.append("An interaction id was given twice")
        if len(extra) > lost:
            faults.append(f"{len(extra)} rows were never answered, though only {lost} answers can have been lost")
        return faults

    def queue_works(self):
        job = self.ask("jobs.enqueue('curate', {}).pk")
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            self.ask("reap()")  # as a schedule does every minute: what a killed process held is taken back
            state = self.ask(f"Job.objects.get(pk={job!r}).state")
            if state == "succeeded":
                return []
            time.sleep(0.5)
        return [f"The queue does not work any more: a job is {state}"]

    def rollback_alone(self):
        """A rollback with queue, Redis and trainer down: seconds until no web process answers by the old version."""
        self.queue.kill()
        self.queue.wait()
        with socket.socket() as closed, second_web(self.server.installation, closed) as web:
            while self.live != 2 or self.version_asked(web) != 2:
                if self.live != 2:
                    self.deploy_or_rollback()
                time.sleep(0.1)
            time.sleep(2)  # until every process of it answers by version 2
            seen, over = [], threading.Event()
            asker = threading.Thread(target=self.keep_asking, args=(web, seen, over))
            asker.start()
            began = time.monotonic()
            self.ask(f"rollback({CLASSIFIER!r})")
            time.sleep(ROLLBACK_SECONDS + 1)
            over.set()
            asker.join()
        took = max([sent - began for sent, version in seen if version != 1], default=0.0)
        print(f"{'rollback':<24}{took:>10.2f} s until nothing was answered by the old version, {len(seen)} times asked")
        return [] if took < ROLLBACK_SECONDS and seen else [f"A rollback took {took:.1f} s"]

    def keep_asking(self, web, seen, over):
        """Note when each request was sent and which version answered it."""
        while not over.is_set():
            sent = time.monotonic()
            seen.append((sent, self.version_asked(web)))

    def version_asked(self, web):
        """Which version answers on a fresh connection, hence by any of the processes."""
        connection = HTTPConnection(web.host, web.port, timeout=30)
        try:
            connection.request("POST", PATH, json.dumps({"text": HELLO}), web.headers)
            return int(json.loads(connection.getresponse().read())["model_version"].partition("/")[2])
        finally:
            connection.close()


@contextmanager
def second_web(installation, closed):
    """A web server of the same installation whose Redis is the port that `closed` occupies without listening."""
    closed.bind(("127.0.0.1", 0))
    with serving(installation, REDIS_URL=f"redis://127.0.0.1:{closed.getsockname()[1]}/0") as web:
        yield web


if __name__ == "__main__":
    main()
