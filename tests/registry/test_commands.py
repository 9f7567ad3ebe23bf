"""The registry's commands: what they print, how they end, and that help shows an example."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, get_commands, load_command_class

from registry import store
from registry.models import Classifier, Deployment, ModelVersion

pytestmark = pytest.mark.django_db
MakeVersion = Callable[..., ModelVersion]
COMMANDS = ("sync_models", "list_models", "deploy", "rollback", "verify_model", "compare")


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def refused(*arguments: str) -> str:
    """The one line that a command ends with."""
    with pytest.raises(CommandError) as error:
        run(*arguments)
    assert error.value.returncode == 1
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str) -> None:
    command = load_command_class(get_commands()[name], name)
    assert f"manage.py {name}" in command.create_parser("manage.py", name).format_help().split("Example:")[1]


def test_sync_models_says_what_became_of_each_entry(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("- {name: a, type: classic}\n- {name: b, type: classic}", encoding="utf-8")
    assert run("sync_models", "--config", str(path)) == "created: a, b\n"
    path.write_text("- {name: a, type: classic}", encoding="utf-8")
    assert run("sync_models", "--config", str(path)) == (
        "unchanged: a\nno longer in the file, still served: b (--prune disables them)\n"
    )
    assert "disabled: b" in run("sync_models", "--config", str(path), "--prune")
    path.write_text("- {name: a, type: classic, colour: red}", encoding="utf-8")
    assert "colour" in refused("sync_models", "--config", str(path))


def test_list_models_on_a_fresh_installation_says_what_to_do(db: None) -> None:
    assert "sync_models" in run("list_models")


def test_list_models_shows_versions_roles_and_figures(make_version: MakeVersion) -> None:
    Classifier.objects.create(slug="intent", name="intent", family="classic", labels=["a", "b"], input_fields=["text"])
    make_version(90)
    make_version(91)
    run("deploy", "emotion/1")
    header, newest, live, untrained, default = run("list_models").splitlines()
    assert header.split("\t") == ["model", "type", "status", "live", "macro-F1", "accuracy"]
    assert newest.split("\t") == ["emotion/2", "classic", "verified", "", "0.900", "0.910"]
    assert live.split("\t")[:4] == ["emotion/1", "classic", "verified", "production"]
    assert untrained.split("\t") == ["intent", "classic", "no version", "", "–", "–"]
    assert default == "Default classifier: emotion"
    (emotion, _intent) = json.loads(run("list_models", "--json"))
    assert emotion["versions"][1]["live"] == {"production": 100}
    assert emotion["labels"] == ["joy", "sadness"]


def test_list_models_leaves_disabled_classifiers_to_all(emotion: Classifier) -> None:
    Classifier.objects.update(enabled=False)
    assert "emotion" not in run("list_models")
    assert "emotion\tclassic\tno version\tdisabled" in run("list_models", "--all")


def test_deploy_and_rollback_say_what_answers_now(make_version: MakeVersion) -> None:
    make_version(80)
    make_version(90)
    assert run("deploy", "emotion/1") == "emotion/1 answers in production now.\n"
    assert run("deploy", "emotion/2", "--reason", "better") == "emotion/2 answers in production now.\n"
    assert run("rollback", "emotion", "--reason", "odd") == "emotion/1 answers in production now.\n"
    assert run("rollback", "emotion", "--to", "2") == "emotion/2 answers in production now.\n"
    assert set(Deployment.objects.values_list("actor", flat=True)) == {"command line"}


def test_what_is_refused_ends_with_one_line_and_its_reason(make_version: MakeVersion) -> None:
    make_version(90)
    make_version(70)
    run("deploy", "emotion/1")
    assert "Macro-F1 fell from 90.0 % to 70.0 %" in refused("deploy", "emotion/2")
    assert "Say why" in refused("deploy", "emotion/2", "--force")
    assert "not available yet" in refused("deploy", "emotion/2", "--canary", "5")
    assert "not available yet" in refused("deploy", "emotion/2", "--shadow")
    assert "live already" in refused("deploy", "emotion/1")
    assert "emotion/3" in refused("deploy", "emotion")
    assert "no earlier version" in refused("rollback", "emotion")
    assert "no classifier 'x'" in refused("rollback", "x")
    assert "against the gate" in run("deploy", "emotion/2", "--force", "--reason", "the golden set is wrong")


def test_verify_model_names_the_damage_and_fails(make_version: MakeVersion) -> None:
    version = make_version(90)
    (store.version_folder("emotion", 1) / "serving" / "vocabulary.json").write_text("{}")
    assert "vocabulary.json has 2 bytes" in refused("verify_model", "emotion/1")
    version.refresh_from_db()
    assert version.status == "corrupt"


def test_compare_sets_figures_side_by_side(make_version: MakeVersion) -> None:
    make_version(70)
    make_version(90)
    printed = run("compare", "emotion/1", "emotion/2")
    assert "accuracy\t0.700\t0.900\t+0.200 (+0.0" in printed
    assert printed.endswith("emotion/2 is better on the same 100 texts.\n")
    assert run("compare", "emotion/2", "emotion/1").endswith("emotion/1 is worse on the same 100 texts.\n")
    assert json.loads(run("compare", "emotion/1", "emotion/2", "--json"))["differences"]["macro_f1"]["low"] > 0


def test_compare_claims_nothing_that_the_figures_do_not_say(make_version: MakeVersion) -> None:
    make_version(90)
    make_version(91)
    make_version(None)
    assert "No difference in macro-F1 can be told" in run("compare", "emotion/1", "emotion/2")
    assert "not scored on the same texts" in run("compare", "emotion/1", "emotion/3")
    assert "accuracy\t0.900\t–\t" in run("compare", "emotion/1", "emotion/3")
