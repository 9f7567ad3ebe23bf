"""The web process answers with every family without ever importing torch."""

import subprocess
import sys
import textwrap

import pytest

from registry.families import FAMILIES
from registry.families.base import Example, FitRequest
from registry.recipe import Recipe

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


class Quiet:
    def progress(self, fraction, note): ...
    def metrics(self, step, epoch, values): ...
    def stop_requested(self):
        return False


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
    from registry.manifest import Manifest, write_manifest

    words = {"joy": "lovely sunny happy fun", "anger": "awful rude angry late"}
    examples = [
        Example((f"{word} {other} number {number}",), label)
        for label, text in words.items()
        for word in text.split()
        for number, other in enumerate(text.split())
    ]
    out = folder / "artefact"
    out.mkdir()
    overrides = {"model_config": {"max_length": 16}, "training_config": {"num_epochs": 1, "warmup_steps": 0}}
    recipe = Recipe.from_dict(overrides, where="test", model_type=family)
    request = FitRequest(
        ("joy", "anger"), ("text",), recipe, examples, examples[::4], out, folder / "checkpoints", Quiet()
    )
    result = family_of(family).fit(request)
    manifest = Manifest(
        classifier="mood",
        family=family,
        labels=request.labels,
        input_fields=request.input_fields,
        preprocessing=1,
        max_length=16 if family == "encoder" else None,
        recipe=recipe.to_dict(),
        calibration=result.calibration,
        metrics={},
        seed=0,
        snapshot_digest=None,
        libraries={},
        parameters=result.parameters,
        base_model=result.base_model,
        created="2026-01-05T09:30:00+00:00",
    )
    write_manifest(out, manifest)
    return out
