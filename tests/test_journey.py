"""The loop against real processes: web server, both workers, a trainer; a person with a browser's cookies; Ctrl-C.

Nothing is imported from the project: this is how it looks from outside.
"""

import re
import signal
import threading
import time
from pathlib import Path

import pytest
import requests

from tests.installation import LABELS, PASSWORD, Installation
from tests.services import wait_until

TEXT = "the blue kettle sings at noon"


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """An empty installation of its own, set up by the commands a person would type."""
    installation = Installation(tmp_path_factory.mktemp("journey"))
    yield installation.set_up(afresh=True)
    installation.close()


@pytest.fixture(scope="module")
def running(installation):
    """`manage.py up`, stopped with Ctrl-C at the end."""
    process = installation.start("up")
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class Browser:
    """A signed-in person: cookies, CSRF tokens, forms; no script."""

    def __init__(self, url: str) -> None:
        self.url, self.session = url, requests.Session()

    def sign_in(self, username: str) -> None:
        page = self.session.get(f"{self.url}/admin/login/")
        assert page.status_code == 200
        self.post("/admin/login/?next=/admin/", username=username, password=PASSWORD)
        assert self.session.get(f"{self.url}/admin/").status_code == 200

    def get(self, path: str) -> str:
        response = self.session.get(self.url + path)
        assert response.status_code == 200, f"{path}: {response.status_code}"
        return response.text

    def post(self, path: str, **data) -> requests.Response:
        token = self.session.cookies.get("csrftoken")
        response = self.session.post(
            self.url + path, data={**data, "csrfmiddlewaretoken": token}, headers={"Referer": self.url + path}
        )
        assert response.status_code == 200, f"{path}: {response.status_code}\n{response.text[:2000]}"
        return response

    def confirm(self, path: str, **data) -> requests.Response:
        """Open the page that asks, then say yes; the page after that."""
        self.get(path)
        response = self.post(path, **data)
        assert not response.url.endswith(path), f"{path} was refused: {errors_in(response.text)}"
        return response


def errors_in(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())[:3000]


def predict(url: str, text: str = TEXT) -> dict:
    response = requests.post(f"{url}/api/classify/topic", json={"text": text}, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def wait_for_version(url: str, version: str) -> dict:
    """The answer once every web process answers by `version`: each notices a deployment within a second by itself."""

    def all_agree():
        responses = [requests.post(f"{url}/api/classify/topic", json={"text": TEXT}, timeout=30) for _ in range(8)]
        answers = [response.json() for response in responses if response.status_code == 200]
        return len(answers) == 8 and {answer["model_version"] for answer in answers} == {version} and answers[0]

    return wait_until(all_agree, 30)


def verified_version(browser: Browser, ref: str) -> int | None:
    """The row of version `ref` on the list of versions; None while its run goes on or it is being verified."""
    rows = re.split(r"<tr\b", browser.get("/admin/registry/modelversion/"))
    row = next((row for row in rows if re.search(rf">\s*{ref}\s*<", row)), "")
    found = re.search(r"/modelversion/(\d+)/change/", row)
    return int(found[1]) if found and "verified" in row else None


def test_a_correction_becomes_the_next_version_and_can_be_taken_back(installation, running):
    url, manage = installation.url, installation.manage
    started = time.monotonic()
    wait_until(lambda: requests.get(f"{url}/livez", timeout=5).ok, 60)
    assert requests.post(f"{url}/api/classify/topic", json={"text": TEXT}, timeout=30).status_code == 503
    assert time.monotonic() - started < 30

    # An engineer loads data and trains the first version from the command line.
    manage("import_dataset", str(installation.folder / "items.csv"), "--classifier", "topic")
    manage("train", "topic", "--deploy")
    first = wait_for_version(url, "topic/1")
    wrong = first["label"]
    right = next(label for label in LABELS if label != wrong)

    # A visitor corrects the answer; it waits for a reviewer, since nobody vouches for the visitor.
    given = requests.post(
        f"{url}/api/feedback",
        json={"interaction_id": first["interaction_id"], "rating": 1, "correct_label": right},
        timeout=30,
    )
    assert (given.status_code, given.json()["status"]) == (201, "recorded")

    # Olga curates, approves, trains and deploys in the admin.
    olga = Browser(url)
    olga.sign_in("olga")
    olga.confirm("/admin/training/trainingdataitem/curate/")
    desk = wait_until(lambda: first_on_the_desk(olga))
    item = int(re.search(r"/trainingdataitem/(\d+)/review/", desk.url)[1])
    assert TEXT in desk.text
    olga.post(f"/admin/training/trainingdataitem/{item}/verdict/", verdict="approve")
    classifier = int(
        re.search(r"/classifier/(\d+)/change/[^>]*>\s*topic", olga.get("/admin/registry/classifier/?q=topic"))[1]
    )
    olga.confirm(f"/admin/registry/classifier/{classifier}/train/", then="none")
    version = wait_until(lambda: verified_version(olga, "topic/2"), 120, every=1)
    assert predict(url)["model_version"] == "topic/1"  # nothing is live before somebody deploys it

    # While requests flow, the new version goes live and is taken back: no request fails, none mixes versions.
    with Traffic(url) as traffic:
        olga.confirm(f"/admin/registry/modelversion/{version}/deploy/", reason="learned from a visitor")
        second = wait_for_version(url, "topic/2")
        assert second["label"] == right
        olga.confirm(f"/admin/registry/classifier/{classifier}/rollback/", reason="only to see that it works")
        assert wait_for_version(url, "topic/1")["label"] == wrong
    assert traffic.failures == []
    assert set(traffic.answers) == {("topic/1", wrong), ("topic/2", right)}

    audited = olga.get("/admin/core/auditevent/")
    assert "version.deploy" in audited
    assert "rollback" in audited


def first_on_the_desk(browser: Browser) -> requests.Response | None:
    """The page of the first item that waits; None while the worker is still curating."""
    desk = browser.session.get(f"{browser.url}/admin/training/trainingdataitem/review/")
    return desk if re.search(r"/\d+/review/$", desk.url) else None


class Traffic:
    """Requests that go on while something else happens."""

    def __init__(self, url: str) -> None:
        self.url, self.answers, self.failures = url, [], []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.flow) for _ in range(4)]

    def flow(self) -> None:
        with requests.Session() as session:
            while not self.stop.is_set():
                response = session.post(f"{self.url}/api/classify/topic", json={"texts": [TEXT] * 3}, timeout=30)
                if response.status_code != 200:
                    self.failures.append(response.text)
                    continue
                results = response.json()["results"]
                if len({result["model_version"] for result in results}) != 1:
                    self.failures.append("one request was answered by two versions")
                self.answers.append((results[0]["model_version"], results[0]["label"]))

    def __enter__(self) -> "Traffic":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_the_web_processes_never_import_torch(running):
    """Looks at what the server's processes have mapped, after they have served (Linux)."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    served = [
        pid for pid in children_of(running.pid) if b"gunicorn" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
    ]
    assert served
    for pid in served:
        assert "libtorch" not in (Path("/proc") / str(pid) / "maps").read_text(errors="replace")


def test_ctrl_c_stops_everything_within_its_grace(running):
    family = children_of(running.pid)
    assert len(family) > 3
    running.send_signal(signal.SIGINT)
    assert running.wait(25) == 0
    left = wait_until(lambda: [pid for pid in family if (Path("/proc") / str(pid)).exists()] == [] or None, 5)
    assert left is True


def children_of(pid: int) -> list[int]:
    """All descendants of a process, by `/proc`-independent means."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
