"""The trainer: `python -m training.runner SPEC`, a process of its own, the only one that imports torch.

Fits, judges on the golden set, writes the card and seals the artefact folder; publishing is its supervisor's work.
SIGTERM asks it to checkpoint and end. Knows files, not Django.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from kalimtak.core.crashpoints import crashpoint
from kalimtak.core.errors import is_disk_full
from registry import families
from registry.card import PICTURE_NAME, write_card, write_picture
from registry.families.base import FamilyError, FitRequest, FitResult, Predictor, Stopped, manifest_of
from registry.families.probes import write_probes
from registry.manifest import ArtefactCorrupt, Manifest, write_manifest
from registry.metrics import Scores
from registry.recipe import Recipe, RecipeError
from training.board import RunBoard, hyper_parameters
from training.run_process import NICENESS, die_with
from training.run_spec import EXIT_DISK_FULL, EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, RunSpec, write_json
from training.scoring import Judgement, judge_predictor

TRAINING_CONFIG_NAME = "training_config.json"
_LIBRARIES = (
    "numpy",
    "scikit-learn",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "safetensors",
)
_MODULES = {"scikit-learn": "sklearn"}

LAST_BYTES = 2**20  # with less than that a disk counts as full, whatever a library said when it could not write

# Shares of the whole run, for the progress bar.
_FITTED, _JUDGED, _COMPARED = 0.90, 0.95, 0.98


class EventReporter:
    """Writes what happens as JSON lines, each flushed at once, and remembers a request to stop.

    Figures also go onto the `board`.
    """

    def __init__(self, path: Path, board: RunBoard | None = None) -> None:
        self._stream = path.open("a", encoding="utf-8")
        self._stop = threading.Event()
        self.board = board

    def emit(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}, ensure_ascii=True, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def progress(self, fraction: float, note: str) -> None:
        """`registry.families.base.Reporter`: `fraction` is of the fit."""
        self.emit("progress", fraction=float(fraction) * _FITTED, note=note)

    def metrics(self, step: int, epoch: float, values: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self.emit("metric", step=int(step), epoch=float(epoch), values=finite)
        if self.board is not None:
            self.board.figures(int(step), finite)

    def describe(self, **facts: str | float) -> None:
        self.emit("facts", facts=facts)

    def overall(self, fraction: float, note: str) -> None:
        """`fraction` is of the whole run. Raises `Stopped` when that was asked for."""
        self.emit("progress", fraction=fraction, note=note)
        if self.stop_requested():
            raise Stopped

    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def request_stop(self, *_: object) -> None:
        self._stop.set()


def main(arguments: list[str]) -> int:
    spec = RunSpec.read(Path(arguments[0]))
    die_with(spec.supervisor)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICENESS)
    reporter = EventReporter(spec.events, RunBoard(spec.board) if spec.board else None)
    signal.signal(signal.SIGTERM, reporter.request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        write_json(spec.result, build_artefact(spec, reporter))
    except Stopped:
        reporter.emit("stopped")
        return EXIT_STOPPED
    except (FamilyError, RecipeError, ArtefactCorrupt) as error:
        reporter.emit("error", message=str(error))
        return EXIT_FAILED
    except Exception as error:
        if _is_disk_full(error, spec):  # then nothing can be reported but by the exit status
            return EXIT_DISK_FULL
        traceback.print_exc()
        reporter.emit("error", message=f"{type(error).__name__}: {error}")
        return EXIT_FAILED
    with contextlib.suppress(OSError):  # the result is there
        reporter.emit("done")
    return EXIT_DONE


def _is_disk_full(error: Exception, spec: RunSpec) -> bool:
    folders = [folder for folder in (spec.folder, spec.out, spec.checkpoints) if folder.exists()]
    return is_disk_full(error) or any(shutil.disk_usage(folder).free < LAST_BYTES for folder in folders)


def build_artefact(spec: RunSpec, reporter: EventReporter) -> dict[str, Any]:
    """Fit, judge and seal `spec.out`; the figures, in JSON types, for the supervisor."""
    started = time.monotonic()
    recipe = Recipe.from_dict(spec.recipe, where=spec.classifier, model_type=spec.family)
    crashpoint("trainer.before_fit")
    if reporter.board is not None:
        reporter.board.text("hyper-parameters", hyper_parameters(spec.family, spec.recipe))
    request = _request(spec, recipe, reporter)
    fitted = families.family(spec.family).fit(request)
    for note in fitted.notes:
        reporter.emit("note", text=note)
    reporter.overall(_FITTED, "Scoring the golden set")
    draft = _manifest(spec, request, fitted)
    predictor = families.family(spec.family).load(spec.out, draft)
    judged = _judge(spec, predictor, reporter, start=_FITTED, end=_JUDGED)
    scores = judged.scores if judged else None
    champion, problem = _judge_champion(spec, reporter)
    for note in [*problem, *_finish_board(reporter.board, scores)]:
        reporter.emit("note", text=note)
    reporter.overall(_COMPARED, "Writing the model card")
    write_probes(spec.out, predictor)
    _write_papers(spec, draft, fitted, scores)
    crashpoint("trainer.before_manifest")
    write_manifest(spec.out, _manifest(spec, request, fitted, scores))
    crashpoint("trainer.before_result")
    return {
        **(judged.to_dict() if judged else {"scores": None, "slices": {}}),
        "champion": champion.to_dict() if champion else None,
        "seconds": round(time.monotonic() - started, 2),
    }


def _request(spec: RunSpec, recipe: Recipe, reporter: EventReporter) -> FitRequest:
    spec.out.mkdir(parents=True, exist_ok=True)
    spec.checkpoints.mkdir(parents=True, exist_ok=True)
    return FitRequest(
        labels=spec.labels,
        input_fields=spec.input_fields,
        recipe=recipe,
        train=spec.read_examples("train"),
        valid=spec.read_examples("valid"),
        out=spec.out,
        checkpoints=spec.checkpoints,
        reporter=reporter,
        resume=spec.resume,
        multi_label=spec.multi_label,
        target_precision=spec.target_precision,
        parent=spec.parent,
        cache=spec.cache,
        members=spec.members,
        loader=spec.loader,
    )


def _judge(
    spec: RunSpec, predictor: Predictor, reporter: EventReporter, *, start: float, end: float
) -> Judgement | None:
    """Score the golden set while the whole run goes from share `start` to `end`; None where there is no golden set."""
    golden = spec.read_examples("golden")
    if not golden:
        return None

    def on_progress(share: float) -> None:
        crashpoint("trainer.during_evaluation")
        reporter.overall(start + share * (end - start), "Scoring the golden set")

    return judge_predictor(predictor, spec.labels, golden, on_progress)


def _judge_champion(spec: RunSpec, reporter: EventReporter) -> tuple[Judgement | None, list[str]]:
    """The live version on the same golden set, or why it could not be scored."""
    if spec.champion is None:
        return None, []
    try:
        predictor = families.load(spec.champion)
    except (ArtefactCorrupt, FamilyError, OSError) as error:
        return None, [f"The live version could not be scored: {error}"]
    if predictor.input_fields != spec.input_fields:
        return None, ["The live version reads other fields and could not be scored on this golden set."]
    return _judge(spec, predictor, reporter, start=_JUDGED, end=_COMPARED), []


def _finish_board(board: RunBoard | None, scores: Scores | None) -> list[str]:
    """The figures of the golden set go onto the board; what went wrong with it, if anything did."""
    if board is None:
        return []
    if scores is not None:
        board.outcome({name: getattr(scores, name) for name in ("accuracy", "macro_f1", "log_loss", "ece")})
    board.close()
    return [board.problem] if board.problem else []


def _manifest(spec: RunSpec, request: FitRequest, fitted: FitResult, scores: Scores | None = None) -> Manifest:
    return manifest_of(
        request,
        fitted,
        classifier=spec.classifier,
        family=spec.family,
        metrics=_headline(scores) if scores else {},
        snapshot_digest=spec.snapshot_digest,
        libraries=_library_versions(),
    )


def _headline(scores: Scores) -> dict[str, Any]:
    """The overall figures, without those per label."""
    figures = scores.to_dict()
    return {name: value for name, value in figures.items() if name not in ("labels", "per_label", "confusion")}


def _write_papers(spec: RunSpec, manifest: Manifest, fitted: FitResult, scores: Scores | None) -> None:
    """What people read beside the model: its card, its confusion matrix, how it was trained.

    The last two lie in `package/` as well, since whoever takes that away takes no more.
    """
    write_card(
        spec.out,
        manifest,
        scores,
        description=spec.description,
        label_descriptions=spec.label_descriptions,
        counts=spec.counts,
        evaluation_digest=spec.golden_digest,
        notes=fitted.notes,
    )
    if scores is not None:
        write_picture(spec.out / PICTURE_NAME, scores)
    trained = {"type": spec.family, "snapshot_digest": spec.snapshot_digest, **spec.recipe, "history": fitted.history}
    text = json.dumps(trained, ensure_ascii=False, indent=2, allow_nan=False)
    (spec.out / TRAINING_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
    for name in (TRAINING_CONFIG_NAME, PICTURE_NAME):
        if (spec.out / name).is_file():
            shutil.copyfile(spec.out / name, spec.out / "package" / name)


def _library_versions() -> dict[str, str]:
    """Of Python and of every library of ours that this run imported."""
    used = [name for name in _LIBRARIES if _MODULES.get(name, name) in sys.modules]
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in used}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
