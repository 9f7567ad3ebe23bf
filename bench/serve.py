"""Requests per second of our own server, every answer recorded before it is sent.

It makes an installation in a temporary folder, trains the classifier on its sample set, starts gunicorn
as the Procfile does, and loads it over 16 keep-alive connections from this machine. Rate limits, keys and routing are
on. Each run ends by counting rows: as many as answers. `--check` is short and exits 1 where anything is off.

    python bench/serve.py --classifier emotion --seconds 10
    python bench/serve.py --check
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 16
CHECK_ROWS = 500  # what a check trains on: it is about serving
TEXTS = [
    "I went to the market this morning and it was a joy to see everyone there",
    "Nobody called on my birthday and the flat has never felt this empty before",
    "They raised the price again without a word, and I am truly fed up with it",
    "The train leaves at nine from platform two and arrives shortly before noon",
]


def main():
    options = arguments()
    seconds = 2.0 if options.check else options.seconds
    with installation(options.classifier, rows=CHECK_ROWS if options.check else None) as server:
        path = f"/api/classify/{options.classifier}"
        load(server, path, 1.0)
        rows = server.rows()
        if shutil.which("wrk") and not options.check:
            result = load_with_wrk(server, path, seconds)
        else:
            result = load(server, path, seconds)
        time.sleep(1)
        recorded = server.rows() - rows
    print(f"{options.classifier}: {result.describe()}")
    print(f"{result.answers} answers, {recorded} rows")
    # A load generator that stops in the middle of a request never sees its answer, which is recorded all the same.
    if result.refused or not result.answers <= recorded <= result.answers + CONNECTIONS:
        sys.exit("Answers and rows do not agree." if not result.refused else f"{result.refused} requests failed.")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", default="intent", help="a demo classifier (emotion: encoder; others: classic)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--check", action="store_true", help="two seconds, for continuous integration")
    return parser.parse_args()


class Result:
    """What one load generator saw; latencies in seconds."""

    def __init__(self, answers, refused, seconds, latencies):
        self.answers, self.refused, self.seconds, self.latencies = answers, refused, seconds, sorted(latencies)

    def percentile(self, share):
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]

    def describe(self):
        rate = f"{self.answers / self.seconds:.0f} requests/s over {CONNECTIONS} connections"
        if not self.latencies:
            return rate
        p50, p99 = (f"{self.percentile(share) * 1000:.1f} ms" for share in (0.5, 0.99))
        return f"{rate}, p50 {p50}, p99 {p99}"


def load(server, path, seconds):
    """A closed loop of as many threads as connections."""
    latencies, refused, until = [], [], time.monotonic() + seconds

    def ask(number):
        connection = HTTPConnection(server.host, server.port, timeout=30)
        while time.monotonic() < until:
            number += 1
            began = time.perf_counter()
            connection.request("POST", path, json.dumps({"text": TEXTS[number % len(TEXTS)]}), server.headers)
            response = connection.getresponse()
            response.read()
            (latencies if response.status == 200 else refused).append(time.perf_counter() - began)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(len(latencies), len(refused), time.monotonic() - began, latencies)


def load_with_wrk(server, path, seconds):
    """The same load from a generator that takes less of the machine away from the server."""
    bodies = ", ".join(f"'{json.dumps({'text': text})}'" for text in TEXTS)
    lua = f"""
        wrk.method = "POST"
        local bodies, n = {{{bodies}}}, 0
        request = function()
          n = n + 1
          return wrk.format(nil, nil, nil, bodies[n % #bodies + 1])
        end
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(lua)
        script.flush()
        headers = [part for name, value in server.headers.items() for part in ("-H", f"{name}: {value}")]
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{int(seconds)}s", "--latency", "-s", script.name, *headers]
        out = subprocess.run(
            [*command, f"http://{server.host}:{server.port}{path}"], check=True, capture_output=True, text=True
        ).stdout
    print(out)
    found = re.search(r"(\d+) requests in ([\d.]+)s", out)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    refused = int(failed[1]) if failed else 0
    return Result(int(found[1]) - refused, refused, float(found[2]), [])


class Server:
    """A running installation of our own."""

    host = "127.0.0.1"

    def __init__(self, port, environment):
        self.port, self.environment = port, environment
        self.headers = {}

    def manage(self, *words):
        """Run a management command; returns what it printed."""
        command = [sys.executable, str(ROOT / "manage.py"), *words]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"manage.py {words[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def manage_all(self, commands):
        """Run management commands in one process, one after the other; returns what they printed."""
        program = (
            "import json, sys, django; django.setup()\n"
            "from django.core.management import call_command\n"
            "for words in json.loads(sys.argv[1]): call_command(*words)"
        )
        environment = self.environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"}
        command = [sys.executable, "-c", program, json.dumps(commands)]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"The installation could not be made: {done.stderr.strip()}")
        return done.stdout

    def rows(self):
        counted = "from interactions.models import UserInteraction as U; print(U.objects.count())"
        return int(self.manage("shell", "--no-imports", "--command", counted).split()[-1])

    def wait_until_ready(self, process, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.host}:{self.port}/readyz", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        sys.exit("The server did not get ready.")


@contextmanager
def installation(classifier, rows=None):
    """A server with one demo classifier, trained on so many rows (all there are) and deployed; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="kalimtak-bench-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        names = ("KALIMTAK_VAR", "KALIMTAK_MODELS_STORE")
        environment = os.environ | {name: str(Path(folder) / name.lower()) for name in names}
        environment |= {"PORT": str(port), "KALIMTAK_RATELIMIT_KEY": "100000000/m", "DEBUG": "0"}
        server = Server(port, environment)
        commands = [["setup"]]
        if rows:
            commands += [
                ["make_sample_data", "--classifier", classifier, "--rows", str(rows), "--output", folder],
                ["import_dataset", str(Path(folder) / classifier / "train.csv"), "--classifier", classifier],
            ]
        commands += [["predict", classifier, TEXTS[0]]]  # trains a version, since there is none
        commands += [["create_api_key", "bench", "--scope", "predict"]]
        key = server.manage_all(commands).split()[-1]
        server.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        command = [sys.executable, "-m", "gunicorn", "-c", "kalimtak/gunicorn.py", "kalimtak.wsgi"]
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        try:
            server.wait_until_ready(process)
            yield server
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
