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
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
from serve import CHECK_ROWS, ROOT, TEXTS, Server, installation, load

CLASSIFIER = "intent"
PATH = f"/api/classify/{CLASSIFIER}"
THREADS = 48
ALLOWED = {200, 429, 503}
ROLLBACK_SECONDS = 5.0
AWAY_SECONDS = (0.5, 4.0)  # how long the database stays away
CONSOLE = """
import json, shutil, sys, uuid
import django
django.setup()
from django.db import connections
from interactions.models import UserInteraction
from kalimtak import fsck
from kalimtak.core import jobs
from kalimtak.core.models import Job
from kalimtak.core.reaper import reap
from registry import store
from registry.models import ModelVersion
from registry.services import classifier_get, version_deploy, version_register, version_rollback, version_verify

def rows():
    return [str(key) for key in UserInteraction.objects.values_list("pk", flat=True).iterator()]

def second_version():
    # The same model once more, under the number 2.
    classifier = classifier_get(sys.argv[1])
    first, staging = classifier.versions.get(number=1), store.staging_folder(uuid.uuid4(), 1)
    store.discard(staging)
    shutil.copytree(store.version_folder(classifier.slug, 1), staging)
    second = version_register(classifier, staging, parent=first, actor="soak")
    assert not version_verify(second)

def deploy(number):
    version = ModelVersion.objects.get(classifier__slug=sys.argv[1], number=number)
    version_deploy(version, actor="soak", force=True, may_force=True, reason="soak")

def rollback():
    version_rollback(classifier_get(sys.argv[1]), actor="soak", reason="soak")

for line in sys.stdin:
    try:
        said = {"value": eval(json.loads(line))}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    connections.close_all()
    print(json.dumps(said, default=str), flush=True)
"""


def main():
    options = arguments()
    seconds = 10.0 if options.check else options.minutes * 60
    with ExitStack() as stack:
        database = stack.enter_context(database_of(options))
        server = stack.enter_context(installation(CLASSIFIER, rows=CHECK_ROWS if options.check else None))
        soak = stack.enter_context(running(Soak(server, database, random.Random(options.seed))))
        soak.ask("second_version()")
        peak = load(server, PATH, 2.0 if options.check else 10.0)
        rate = options.rate or max(peak.answers / peak.seconds / 2, 1.0)
        print(f"peak {peak.answers / peak.seconds:.0f} requests/s, load {rate:.0f} requests/s for {seconds:.0f} s")
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

    def __init__(self, name):
        self.name = name

    restart = None


class Postgres(Database):
    """A PostgreSQL server in a folder of its own. It keeps its promises to the disk: fsync is on."""

    def __init__(self, binaries, folder):
        super().__init__("PostgreSQL, private")
        self.binaries, self.folder = binaries, folder
        self.user = "postgres" if os.getuid() == 0 else ""  # the server refuses to run as root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if self.user:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, pwd.getpwnam(self.user).pw_gid)
        self.run("initdb", "-D", f"{folder}/data", "-U", "kalimtak", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()

    @property
    def url(self):
        return f"postgres://kalimtak@127.0.0.1:{self.port}/postgres"

    def start(self):
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder}"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode):
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", mode, "stop")

    def restart(self, mode, away):
        self.stop(mode)
        time.sleep(away)
        self.start()

    def run(self, program, *words):
        prefix = ["runuser", "-u", self.user, "--"] if self.user else []
        command = [*prefix, str(self.binaries / program), *words]
        nothing = subprocess.DEVNULL  # not a pipe: the server would keep it open
        subprocess.run(command, check=True, cwd=self.folder, stdout=nothing, stderr=nothing)


@contextmanager
def database_of(options):
    """The database of the choice, which installations made meanwhile use."""
    os.environ.pop("REDIS_URL", None)
    os.environ.setdefault("WEB_CONCURRENCY", str(os.cpu_count()))
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    choice = options.database
    if choice == "auto":
        choice = "postgres" if folders else "sqlite"
    if choice == "sqlite":
        os.environ.pop("DATABASE_URL", None)
        yield Database("SQLite")
    elif choice != "postgres":
        os.environ["DATABASE_URL"] = choice
        yield Database("PostgreSQL, not restarted")
    else:
        with tempfile.TemporaryDirectory(prefix="kalimtak-soak-") as folder:
            database = Postgres(folders[0], folder)
            os.environ["DATABASE_URL"] = database.url
            try:
                yield database
            finally:
                database.stop("immediate")


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

    def __init__(self, server, database, chance):
        self.server, self.database, self.chance = server, database, chance
        self.statuses, self.survived = Counter(), Counter()
        self.latencies, self.answered, self.live, self.problems = [], [], 1, []
        self.cut = 0
        self.noting = threading.Lock()

    def start(self):
        command = [sys.executable, "-c", CONSOLE, CLASSIFIER]
        environment = self.server.environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.console = subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)
        self.web = next(each for each in psutil.Process().children() if "kalimtak.wsgi" in each.cmdline())
        self.queue = self.start_queue()

    def start_queue(self):
        command = [sys.executable, str(ROOT / "manage.py"), "qcluster", "--stuck-after", "5"]
        return psutil.Popen(command, env=self.server.environment, cwd=ROOT, stderr=subprocess.DEVNULL)

    def stop(self):
        for process in (self.console, self.queue):
            with suppress(psutil.NoSuchProcess):
                process.kill()
                process.wait()

    def ask(self, expression):
        self.console.stdin.write(json.dumps(expression) + "\n")
        self.console.stdin.flush()
        said = json.loads(self.console.stdout.readline())
        if "error" in said:
            raise RuntimeError(f"{expression}: {said['error']}")
        return said["value"]

    def forget_what_was_before(self):
        self.before = set(self.ask("rows()"))
        self.memory_before = self.memory()

    def memory(self):
        """Resident megabytes of all web processes."""
        return sum(each.memory_info().rss for each in (self.web, *self.web.children())) / 1e6

    # Load

    def shake(self, rate, seconds, *, check):
        """Ask at `rate` for `seconds` and carry out the schedule meanwhile."""
        due = iter(range(int(rate * seconds)))
        began = time.monotonic() + 0.2
        threads = [threading.Thread(target=self.ask_when_due, args=(due, began, rate)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for at, name, action in self.schedule(seconds, check):
            time.sleep(max(0.0, began + at - time.monotonic()))
            try:
                action()
                self.survived[name] += 1
            except Exception as error:
                self.problems.append(f"{name} at {at:.0f} s: {error!r}")
        for thread in threads:
            thread.join()
        self.seconds = time.monotonic() - began

    def ask_when_due(self, due, began, rate):
        connection = HTTPConnection(self.server.host, self.server.port, timeout=60)
        while True:
            with self.noting:
                number = next(due, None)
            if number is None:
                return
            expected = began + number / rate
            time.sleep(max(0.0, expected - time.monotonic()))
            try:
                connection.request("POST", PATH, json.dumps({"text": TEXTS[number % len(TEXTS)]}), self.server.headers)
                response = connection.getresponse()
                body = response.read()
            except (OSError, HTTPException):
                connection.close()
                with self.noting:
                    self.cut += 1
                continue
            took = time.monotonic() - expected
            with self.noting:
                self.statuses[response.status] += 1
                if response.status == 200:
                    self.latencies.append(took)
                    self.answered.append(json.loads(body)["interaction_id"])

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
            self.ask("rollback()")
        else:
            self.ask("deploy(2)")
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
        latencies = sorted(self.latencies)
        print(f"{'requests':<24}{sum(self.statuses.values()) + self.cut:>10}")
        for status, count in sorted(self.statuses.items()):
            print(f"{f'  answered with {status}':<24}{count:>10}")
        print(f"{'  connection cut':<24}{self.cut:>10}")
        for share in (0.5, 0.95, 0.99):
            if latencies:
                value = latencies[min(int(share * len(latencies)), len(latencies) - 1)]
                print(f"{f'p{share * 100:.0f}':<24}{value * 1000:>10.1f} ms")
        for name, count in sorted(self.survived.items()):
            print(f"{name:<24}{count:>10}")
        print(f"{'memory of web, MB':<24}{self.memory_before:>10.0f} before, {self.memory():.0f} after")
        odd = {status: count for status, count in self.statuses.items() if status not in ALLOWED}
        faults = [f"Statuses that must not be: {odd}"] if odd else []
        if not self.statuses[200]:
            faults.append("Nothing was answered.")
        return faults + self.problems

    def compare_rows(self):
        answered, deadline = set(self.answered), time.monotonic() + 60
        while not answered <= set(self.ask("rows()")) and time.monotonic() < deadline:
            time.sleep(0.5)  # what was answered without the database is recorded just now
        rows = set(self.ask("rows()")) - self.before
        missing, extra = answered - rows, rows - answered
        lost = self.cut + self.statuses[503]
        print(f"{'rows':<24}{len(rows):>10}, {len(extra)} of them for answers that were lost")
        faults = [f"{len(missing)} answers have no row"] if missing else []
        if len(answered) != len(self.answered):
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
        with socket.socket() as closed, second_web(self.server, closed) as web:
            while self.live != 2 or self.version_asked(web) != 2:
                if self.live != 2:
                    self.deploy_or_rollback()
                time.sleep(0.1)
            time.sleep(2)  # until every process of it answers by version 2
            seen, over = [], threading.Event()
            asker = threading.Thread(target=self.keep_asking, args=(web, seen, over))
            asker.start()
            began = time.monotonic()
            self.ask("rollback()")
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
            connection.request("POST", PATH, json.dumps({"text": TEXTS[0]}), web.headers)
            return int(json.loads(connection.getresponse().read())["model_version"].partition("/")[2])
        finally:
            connection.close()


@contextmanager
def second_web(server, closed):
    """A web server of the same installation whose Redis is the port that `closed` occupies without listening."""
    closed.bind(("127.0.0.1", 0))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis = f"redis://127.0.0.1:{closed.getsockname()[1]}/0"
    web = Server(port, server.environment | {"PORT": str(port), "REDIS_URL": redis})
    web.headers = server.headers
    command = [sys.executable, "-m", "gunicorn", "-c", "kalimtak/gunicorn.py", "kalimtak.wsgi"]
    process = subprocess.Popen(command, env=web.environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        web.wait_until_ready(process)
        yield web
    finally:
        process.terminate()
        process.wait(40)


if __name__ == "__main__":
    main()
