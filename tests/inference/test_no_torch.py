"""The web process answers with every family without ever importing torch."""

import subprocess
import sys
import textwrap

import pytest

from registry.families import FAMILIES
from registry.families.base import Example, FitRequest, Silent, manifest_of
from registry.recipe import Recipe
from tests.registry.families.material import OWN_CODE
from tests.registry.families.tiny import write_tiny_bert

SERVE = textwrap.dedent(
    """
    import sys, django
    from pathlib import Path
    django.setup()
    import kalimtak.urls, kalimtak.wsgi
    from registry.families import load
    predictor = load(Path(sys.argv[1]))
    answer = predictor.predict([("what a lovely day",)])[0]
    assert abs(answer.probabilities.sum() - 1) < 1e-3
    print(sorted(name for name in ("torch", "transformers") if name in sys.modules))
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_process_that_serves_a_family_imports_no_torch(family, tmp_path):
    artefact = fit(family, tmp_path)
    done = subprocess.run([sys.executable, "-c", SERVE, str(artefact)], capture_output=True, text=True, cwd=".")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def fit(family, folder):
    """A tiny version of the family, sealed as the runner seals it."""
    from registry.families import family as family_of
    from registry.manifest import write_manifest

    words = {"joy": "lovely sunny happy fun", "anger": "awful rude angry late"}
    examples = [
        Example((f"{word} {other} number {number}",), label)
        for label, text in words.items()
        for word in text.split()
        for number, other in enumerate(text.split())
    ]
    out = folder / "artefact"
    out.mkdir(parents=True)
    model = {"max_length": 16}
    if family in ("embedding", "encoder", "lora"):  # a few weights tell as much as the many of a whole base model
        folder.mkdir(exist_ok=True)
        (folder / "base").mkdir()
        model["model_name"] = str(write_tiny_bert(folder / "base", " ".join(words.values()).split()))
    overrides = {"model_config": model, "training_config": {"num_epochs": 1, "warmup_steps": 0}}
    recipe = Recipe.from_dict(overrides, where="test", model_type=family)
    members = {name: fit("classic", folder / name) for name in ("one", "two")} if family == "ensemble" else {}
    request = FitRequest(
        ("joy", "anger"),
        ("text",),
        recipe,
        examples,
        examples[::4],
        out,
        folder / "checkpoints",
        Silent(),
        members=members,
        loader=OWN_CODE if family == "custom" else None,
    )
    result = family_of(family).fit(request)
    write_manifest(out, manifest_of(request, result, classifier="mood", family=family))
    return out
