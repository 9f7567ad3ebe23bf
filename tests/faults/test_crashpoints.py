"""Every named crash point is reached, a process is killed there, and what comes next leaves what no death would have.

Each scenario is played once without a death; what there is then (rows, files, results, audit entries) is what there
must be after a death at each of its points and the retry that follows by itself, or by the user's next try.
"""

import ast
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.inference.test_predict_file import DEATHS as DRAFT_DEATHS
from tests.installation import ROOT, Installation
from tests.services import wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

PACKAGES = ("kalimtak", "registry", "interactions", "training", "inference")
WORDS = {"weather": "rain wind cloud storm snow sun", "food": "bread soup cheese apple rice plum"}
ROWS = 1_260  # two blocks of a snapshot, three chunks of an import
MORE = 1_100

# Where each scenario is to die. `name:2` is the second pass; with a comma, both die: first the one, then the other.
DEATHS = {
    "upload": ["store.dataset_before_rename", "store.dataset_after_rename", "audit.before_row"],
    "import": [
        *(
            "jobs.after_claim",
            "import.analysed",
            "import.before_first_chunk",
            "import.in_chunk",
            "import.between_chunks",
        ),
        *("import.in_chunk:3", "import.before_ready", "import.before_run", "run.before_commit", "jobs.before_finish"),
    ],
    "past": [
        *("past.analysed", "past.in_chunk", "past.between_chunks", "past.in_chunk:3", "past.before_ready"),
        "jobs.before_finish",
    ],
    "download": ["import.fetched"],
    "start": [
        *("snapshot.before_golden", "snapshot.before_rows", "snapshot.before_rows:2", "snapshot.before_commit"),
        *("run.after_job", "run.before_commit"),
    ],
    "fine_tune": ["fine_tune.run_started"],
    "curate": [
        *("curation.before_load", "curation.before_mark", "curation.after_batch", "curation.before_load:2"),
        *("curation.after_batch:2", "curation.after_batch:3", "jobs.before_finish"),
        *("curation.after_forgetting", "curation.after_telling", "curation.after_comparing"),
        "curation.after_comparing:2",
    ],
    "train": [
        *("jobs.after_claim", "supervisor.before_pid_file", "supervisor.trainer_done", "store.before_rename"),
        *("store.after_rename", "version.before_commit"),
        *("trainer.during_evaluation,supervisor.trainer_killed",),
    ],
    "conclude": [
        *("supervisor.registered", "version.before_verified", "supervisor.verified", "supervisor.judged"),
        *("deployment.before_row", "deployment.before_commit", "deployment.after_commit"),
        *("supervisor.before_cleanup", "jobs.before_finish"),
    ],
    "spool": [
        *("spool.before_write:2", "spool.before_fsync:2", "spool.after_fsync:2", "spool.in_replay"),
        "spool.before_removal",
    ],
    "deploy": ["deployment.before_row", "deployment.before_commit", "deployment.after_commit"],
    "roll_back": ["deployment.before_row", "deployment.before_commit", "deployment.after_commit"],
}
TRAINER_DEATHS = [
    *("trainer.before_fit", "classic.before_pass:3", "classic.during_export", "trainer.during_evaluation"),
    *("trainer.before_manifest", "manifest.before_rename", "trainer.before_result"),
]
# The newest whole checkpoint that each leaves; one is written after each step, six steps are an epoch of two.
ENCODER_DEATHS: dict[str, str | None] = {
    "encoder.before_step:1": None,
    "encoder.before_step:3": "checkpoint-2",
    "encoder.mid_step:3": "checkpoint-2",
    "checkpoint.before_manifest:2": "checkpoint-1",
    "checkpoint.before_rename:2": "checkpoint-1",
    "checkpoint.after_rename:2": "checkpoint-2",
    "encoder.after_evaluation": "checkpoint-6",
    "encoder.during_export": "checkpoint-12",
}
SWAP_DEATHS = ["swap.loading:2", "swap.before:2", "swap.after:2"]
WITH_A_LEFT_FOLDER = ["store.orphan_moved"]
START = {"deploy": "trained", "spool": "trained", "curate": "trained", "roll_back": "second", "conclude": "registered"}


def points_of(deaths: list[str]) -> set[str]:
    return {place.partition(":")[0] for death in deaths for place in death.split(",")}


def points_in_the_code() -> set[str]:
    found = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "crashpoint":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}: the name must be a literal"
                found.add(node.args[0].value)
    return found


def test_every_crash_point_in_the_code_is_tried_here_and_no_other() -> None:
    tried = [*TRAINER_DEATHS, *ENCODER_DEATHS, *SWAP_DEATHS, *WITH_A_LEFT_FOLDER, *DRAFT_DEATHS]
    assert points_of([death for deaths in DEATHS.values() for death in deaths] + tried) == points_in_the_code()


# Installations ----------------------------------------------------------------------------------------------------


def rows(count: int, first: int = 0) -> str:
    """Labelled sentences, no two alike, as CSV."""
    lines = ["text,label"]
    for number in range(first, first + count):
        label = ("weather", "food")[number % 2]
        words = WORDS[label].split()
        lines.append(f"{words[number % 6]} and {words[number // 6 % 6]} number {number},{label}")
    return "\n".join(lines) + "\n"


class Templates:
    """Installations at a certain point of their life, made once, cloned for each case."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made, self.count = folder, {}, 0
        self.stage: subprocess.Popen[str] | None = None

    def get(self, name: str) -> Installation:
        if name not in self.made:
            self.made[name] = getattr(self, f"make_{name}")()
        return self.made[name]

    def clone(self, name: str) -> Installation:
        template = self.get(name)
        self.count += 1
        return template.clone(self.folder / f"case-{self.count}")

    def play(self, installation: Installation, code: str, **extra: str) -> str:
        """What `code` prints in a process of that installation, which must end well."""
        if self.stage is None:
            self.stage = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.stage"],
                cwd=ROOT,
                env=installation.environment | {"DJANGO_SETTINGS_MODULE": "kalimtak.settings"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        output = installation.folder / "output"
        order = {"environment": installation.environment | extra, "code": code, "output": str(output)}
        assert self.stage.stdin and self.stage.stdout
        self.stage.stdin.write(json.dumps(order) + "\n")
        self.stage.stdin.flush()
        status = self.stage.stdout.readline().strip()
        assert status == "0", f"{code}: {status}\n{output.read_text()}"
        return output.read_text()

    def close(self) -> None:
        if self.stage is not None:
            self.stage.kill()
            self.stage.wait()
        for template in self.made.values():
            template.close()

    def make_taught(self) -> Installation:
        made = Installation(self.folder / "taught", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1").set_up()
        (made.folder / "rows.csv").write_text(rows(ROWS))
        (made.folder / "more.csv").write_text(rows(MORE, first=ROWS - 100))
        self.play(made, "load_rows()")
        return made

    def make_trained(self) -> Installation:
        made = self.clone("taught")
        self.play(made, "deploy_first_and_verify_second()")
        return made

    def make_second(self) -> Installation:
        made = self.clone("trained")
        self.play(made, "deploy_second()")
        return made

    def make_registered(self) -> Installation:
        """A supervisor died right after it had registered its version."""
        made = self.clone("taught")
        self.play(made, "queue_run(); die(work, 'supervisor.registered')")
        return made


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    made = Templates(tmp_path_factory.mktemp("crashes"))
    yield made
    made.close()


@pytest.fixture
def clone(templates: Templates) -> Iterator[Callable[[str], Installation]]:
    cloned: list[Installation] = []

    def make(name: str) -> Installation:
        cloned.append(templates.clone(name))
        return cloned[-1]

    yield make
    for each in cloned:
        each.close()


Clone = Callable[[str], Installation]
Undisturbed = Callable[[str], dict[str, Any]]
PREPARE = {"import": "queue_import()", "past": "queue_past()", "download": "queue_download()", "train": "queue_run()"}


@pytest.fixture(scope="module")
def undisturbed(templates: Templates) -> Callable[[str], dict[str, Any]]:
    """What there is after a scenario in which nobody died."""

    @cache
    def once(name: str) -> dict[str, Any]:
        installation = templates.clone(START.get(name, "taught"))
        facts = played(templates, installation, name)
        installation.close()
        return facts

    return once


def played(templates: Templates, installation: Installation, name: str, death: str = "") -> dict[str, Any]:
    return last_line(templates.play(installation, f"{PREPARE.get(name, '')}\nplay({name!r}, {death!r})"))


def last_line(output: str) -> dict[str, Any]:
    """The facts; what is logged comes before them."""
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return facts


# Deaths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, death", [(name, death) for name, deaths in DEATHS.items() for death in deaths])
def test_a_death_and_a_retry_leave_what_no_death_leaves(
    name: str, death: str, templates: Templates, clone: Clone, undisturbed: Undisturbed
) -> None:
    installation = clone(START.get(name, "taught"))
    assert played(templates, installation, name, death) == undisturbed(name)


def test_nothing_is_found_wrong_where_nobody_died(undisturbed: Undisturbed) -> None:
    for name in DEATHS:
        facts = undisturbed(name)
        assert (facts["fsck"], facts["staging"], facts["work"]) == ([], [], []), name


@pytest.mark.own_servers  # or rather none: a trainer knows no database
@pytest.mark.parametrize("death", TRAINER_DEATHS)
def test_a_trainer_that_dies_is_started_once_more(
    death: str, templates: Templates, clone: Clone, undisturbed: Undisturbed
) -> None:
    installation = clone("taught")
    noted = installation.folder / "died"
    code = "queue_run(); work(); assert Job.objects.get(kind='train').attempt == 1; tell()"
    facts = last_line(
        templates.play(installation, code, KALIMTAK_CRASHPOINT=death, KALIMTAK_CRASHPOINT_ONCE=str(noted))
    )
    assert noted.read_text().split() == [death.partition(":")[0]]
    assert facts == undisturbed("train")


def test_a_trainer_that_dies_each_time_fails_its_run_with_the_reason(templates: Templates, clone: Clone) -> None:
    installation = clone("taught")
    code = "queue_run(); work(); print(Job.objects.get().error); tell()"
    output = templates.play(installation, code, KALIMTAK_CRASHPOINT="trainer.before_fit")
    assert "The trainer was killed by signal 9" in output
    facts = last_line(output)
    assert facts["jobs"] == [["train", "failed"]]
    assert (facts["versions"], facts["live"], facts["staging"], facts["fsck"]) == ([], None, [], [])


def test_a_folder_that_a_death_left_is_moved_aside_once(
    templates: Templates, clone: Clone, undisturbed: Undisturbed
) -> None:
    installation = clone("taught")
    left = installation.folder / "store" / "topic" / "1"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{}")
    assert played(templates, installation, "train", "store.orphan_moved") == undisturbed("train")
    assert len(list((installation.folder / "store" / "_orphans").iterdir())) == 1


@pytest.fixture(scope="module")
def encoder_deaths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    if os.environ.get("KALIMTAK_TEST_DATABASE_URL"):
        pytest.skip("a trainer knows no database: tried in the run on SQLite")
    folder = tmp_path_factory.mktemp("encoder")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.encoder_stage", str(folder), *ENCODER_DEATHS],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {death: [*rest, done.stderr] for death, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.parametrize("death", ENCODER_DEATHS)
def test_an_encoder_that_dies_goes_on_from_the_newest_whole_checkpoint(
    death: str, encoder_deaths: dict[str, list[Any]]
) -> None:
    status, kept, again, notes, log = encoder_deaths[death]
    assert (status, kept, again) == (-9, ENCODER_DEATHS[death], 0), log
    assert [note for note in notes if note.startswith("Resumed")] == ([f"Resumed from {kept}."] if kept else [])


# Swapping ---------------------------------------------------------------------------------------------------------


class Asking:
    """What a client sees that goes on asking, whatever happens to the server."""

    def __init__(self, url: str) -> None:
        self.url, self.answers = url, []

    def ask(self) -> str:
        """The version that answered, or nothing where the connection broke."""
        try:
            answer = requests.post(f"{self.url}/api/classify/topic", json={"text": "rain and wind"}, timeout=10)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):  # before or within the answer
            return ""
        assert answer.status_code == 200, answer.text
        self.answers.append(answer.json())
        return str(answer.json()["model_version"])

    def until(self, version: str, *, instead: str) -> None:
        """Ask until `version` answers; until then `instead` does."""
        deadline = time.monotonic() + 30
        while (seen := self.ask()) != version:
            assert seen in ("", instead), seen
            assert time.monotonic() < deadline, f"{version} never answered"
            time.sleep(0.02)


def test_a_web_process_that_dies_while_it_swaps_answers_with_the_old_or_the_new(
    templates: Templates, clone: Clone
) -> None:
    installation = clone("trained")
    noted = installation.folder / "died"
    deaths = {"KALIMTAK_CRASHPOINT": ",".join(SWAP_DEATHS), "KALIMTAK_CRASHPOINT_ONCE": str(noted)}
    installation.start_web(WEB_CONCURRENCY="1", **deaths)
    client = Asking(installation.url)
    client.until("topic/1", instead="")
    for number, (click, version, before) in enumerate(
        [
            ("deploy_second()", "topic/2", "topic/1"),
            ("roll_back()", "topic/1", "topic/2"),
            ("deploy_second()", "topic/2", "topic/1"),
        ],
        start=1,
    ):
        templates.play(installation, click)
        client.until(version, instead=before)
        wait_until(lambda died=number: len(noted.read_text().split()) == died, what=f"death {number}")
        client.until(version, instead="")
    assert noted.read_text().split() == [death.partition(":")[0] for death in SWAP_DEATHS]
    facts = last_line(templates.play(installation, "tell()"))
    assert (facts["live"], facts["fsck"]) == ("topic/2", [])
    recorded = json.loads(
        templates.play(installation, "print(json.dumps([str(each.pk) for each in UserInteraction.objects.all()]))")
    )
    answered = Counter(answer["interaction_id"] for answer in client.answers)
    assert set(answered.values()) == {1}
    assert set(answered) <= set(recorded)
