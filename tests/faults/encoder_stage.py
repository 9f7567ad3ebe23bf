"""`python -m tests.faults.encoder_stage FOLDER DEATH …`: an encoder's fit that dies, and the one that goes on from it.

What a fit imports is loaded once; each fit is a process of its own, forked before any of them computes. Prints a line
of JSON for each death: how the first fit ended, the newest intact checkpoint it left, and the notes of the second one.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from registry.families import encoder, load, watch  # watch: loads torch, here and not in each fit
from registry.families.base import FitRequest
from registry.families.base_models import find_base_model
from registry.families.checkpoints import Checkpoints
from tests.registry.families.material import request_for, seal, sentences, settings_of
from tests.registry.families.tiny import write_tiny_bert

watch.CHECKPOINT_EVERY = 0.0  # after each step
PRELOADED = (
    *("transformers.models.bert.modeling_bert", "registry.families.encoder_conversion", "registry.families.export"),
    *("onnx.reference", "onnxruntime.quantization", "onnxscript.optimizer", "onnxscript.rewriter.onnx_fusions"),
)


def main(folder: Path, deaths: list[str]) -> None:
    for module in PRELOADED:
        import_module(module)
    base = folder / "base"
    base.mkdir(parents=True)
    words = sorted({word for told in sentences(100) for word in told.fields[0].lower().split()})
    assert apart(lambda: write_tiny_bert(base, words)) == 0
    for death in deaths:
        request = request_of(folder / death.replace(":", "-"), base, resume=False)
        os.environ["KALIMTAK_CRASHPOINT"] = death
        status = apart(lambda each=request: encoder.fit(each))
        del os.environ["KALIMTAK_CRASHPOINT"]
        fingerprint = encoder.fingerprint(request, find_base_model(request.recipe.model.model_name))
        kept = Checkpoints(request.checkpoints, fingerprint).newest()
        shutil.rmtree(request.out, ignore_errors=True)  # as a supervisor does before it starts another trainer
        again = apart(lambda each=death: finish(request_of(folder / each.replace(":", "-"), base, resume=True)))
        notes = json.loads((request.out.parent / "notes.json").read_text()) if again == 0 else []
        print(json.dumps([death, status, kept.name if kept else None, again, notes]), flush=True)


def request_of(folder: Path, base: Path, *, resume: bool) -> FitRequest:
    """Six steps in each of two epochs."""
    settings = (*settings_of("encoder", base), "training_config.num_epochs=2")
    return request_for(folder, *settings, train=sentences(96, seed=1), valid=sentences(30, seed=2), resume=resume)


def finish(request: FitRequest) -> None:
    """Fit to the end; the artefact answers."""
    result = encoder.fit(request)
    answer = load(seal("encoder", request, result)).predict([("I saw snow",)])[0]
    assert abs(answer.probabilities.sum() - 1) < 1e-5
    (request.out.parent / "notes.json").write_text(json.dumps(result.notes))


def apart(act: Callable[[], object]) -> int:
    """Do it in a process of its own; how that ended."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
