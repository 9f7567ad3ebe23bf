"""Checkpoints are whole or absent, and only a run's own are resumed."""

import json
from pathlib import Path

import pytest

from registry.families.checkpoints import Checkpoints
from registry.manifest import MANIFEST_NAME


def draft(checkpoints: Checkpoints, step: int) -> None:
    """What transformers leaves in its folder."""
    folder = checkpoints.drafts / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "optimizer.pt").write_bytes(b"moments" * 100)
    (folder / "training_args.bin").write_bytes(b"\x80\x04pickle")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path / "checkpoints", "run-a")
    for step in (10, 20, 100):
        draft(made, step)
        made.seal_step(step)
    return made


def test_the_two_newest_are_kept_by_number(checkpoints: Checkpoints) -> None:
    assert sorted(path.name for path in checkpoints.folder.glob("checkpoint-*")) == ["checkpoint-100", "checkpoint-20"]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == "checkpoint-100"


def test_nothing_that_resuming_does_not_read_is_kept(checkpoints: Checkpoints) -> None:
    names = {path.name for path in (checkpoints.folder / "checkpoint-100").iterdir()}
    assert names == {"model.safetensors", "optimizer.pt", MANIFEST_NAME}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", MANIFEST_NAME])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoints: Checkpoints, name: str, harm: str) -> None:
    path = checkpoints.folder / "checkpoint-100" / name
    content = path.read_bytes()
    if harm == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "truncate":
        path.write_bytes(content[:-1] if name != MANIFEST_NAME else content[:-9])
    else:
        path.unlink()
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.name == "checkpoint-20"


def test_a_file_that_was_added_makes_a_checkpoint_void(checkpoints: Checkpoints) -> None:
    (checkpoints.folder / "checkpoint-100" / "rng_state.pth").write_bytes(b"x")
    assert not checkpoints.is_intact(checkpoints.folder / "checkpoint-100")


def test_a_draft_that_was_never_sealed_is_not_resumed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "run-a")
    draft(checkpoints, 30)
    (tmp_path / "checkpoint-40").mkdir()
    assert checkpoints.newest() is None


def test_checkpoints_of_another_run_are_not_resumed(checkpoints: Checkpoints) -> None:
    assert Checkpoints(checkpoints.folder, "run-b").newest() is None


def test_a_manifest_that_is_no_object_is_no_manifest(checkpoints: Checkpoints) -> None:
    for path in checkpoints.folder.glob("checkpoint-*"):
        (path / MANIFEST_NAME).write_text(json.dumps(["files"]), encoding="utf-8")
    assert checkpoints.newest() is None


def test_sealing_a_step_again_replaces_it(checkpoints: Checkpoints) -> None:
    draft(checkpoints, 100)
    (checkpoints.drafts / "checkpoint-100" / "optimizer.pt").write_bytes(b"later")
    checkpoints.seal_step(100)
    assert (checkpoints.folder / "checkpoint-100" / "optimizer.pt").read_bytes() == b"later"
    assert checkpoints.is_intact(checkpoints.folder / "checkpoint-100")


def test_clearing_leaves_an_empty_folder(checkpoints: Checkpoints) -> None:
    checkpoints.clear()
    assert list(checkpoints.folder.iterdir()) == []
