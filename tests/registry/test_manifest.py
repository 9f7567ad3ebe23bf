"""`registry.manifest`: an artefact is what its manifest says, to the byte, or it is corrupt."""

import dataclasses
import json
import os
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from registry.manifest import (
    ArtefactCorrupt,
    Manifest,
    check_files,
    hash_files,
    manifest_digest,
    read_manifest,
    verify_manifest,
    write_manifest,
)

MANIFEST = Manifest(
    classifier="emotion",
    family="classic",
    labels=("joy", "سعادة", "می‌خواهم"),
    input_fields=("question", "context"),
    preprocessing=1,
    max_length=None,
    recipe={"training_config": {"C": 5.0}},
    calibration={"temperature": 1.2},
    metrics={"macro_f1": 0.9},
    seed=13,
    snapshot_digest=None,
    libraries={"numpy": "2.4.6"},
    parameters={"total": 12, "trainable": 12},
    base_model=None,
    created="2026-01-05T09:30:00+00:00",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artefact in small: weights, a configuration, a card."""
    (tmp_path / "package").mkdir()
    (tmp_path / "serving" / "deep").mkdir(parents=True)
    save_file({"weight": np.arange(12, dtype=np.float32)}, tmp_path / "package" / "model.safetensors")
    (tmp_path / "package" / "config.json").write_text('{"model_type": "bert", "nested": [{"a": 1}]}')
    (tmp_path / "serving" / "deep" / "vocabulary.json").write_text('{"سعيد": 0}', encoding="utf-8")
    (tmp_path / "model_card.md").write_text("# emotion\n")
    return tmp_path


@pytest.fixture
def sealed(folder: Path) -> Path:
    write_manifest(folder, MANIFEST)
    return folder


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def test_a_sealed_folder_verifies_and_reads_back(folder: Path) -> None:
    written = write_manifest(folder, MANIFEST)
    assert set(written.files) == {
        "package/model.safetensors",
        "package/config.json",
        "serving/deep/vocabulary.json",
        "model_card.md",
    }
    assert verify_manifest(folder) == read_manifest(folder) == written
    assert dataclasses.replace(written, files={}) == MANIFEST


def test_a_moved_folder_still_verifies(sealed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "1"
    sealed.rename(target)
    assert verify_manifest(target).classifier == "emotion"


def test_the_digest_changes_with_any_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_manifest(folder, MANIFEST)
    other = tmp_path_factory.mktemp("other")
    (other / "model_card.md").write_text("# emotion!\n")
    write_manifest(other, MANIFEST)
    assert manifest_digest(folder) != manifest_digest(other)
    assert len(manifest_digest(folder)) == 64


def test_a_sealed_folder_is_never_sealed_again(sealed: Path) -> None:
    before = (sealed / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="never overwritten"):
        write_manifest(sealed, MANIFEST)
    assert (sealed / "manifest.json").read_bytes() == before


def test_what_a_crash_left_of_an_earlier_attempt_does_no_harm(folder: Path) -> None:
    (folder / "manifest.json.tmp").write_text("half a mani")
    write_manifest(folder, MANIFEST)
    assert "manifest.json.tmp" not in verify_manifest(folder).files


def test_figures_that_are_not_numbers_are_refused_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_manifest(folder, dataclasses.replace(MANIFEST, metrics={"macro_f1": float("nan")}))
    assert not (folder / "manifest.json").exists()


@settings(deadline=None)
@given(
    position=st.integers(min_value=0), bit=st.integers(0, 7), name=st.sampled_from(["model.safetensors", "config.json"])
)
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int, name: str) -> None:
    folder = tmp_path_factory.mktemp("flip")
    save_file({"weight": np.arange(12, dtype=np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    write_manifest(folder, MANIFEST)
    content = bytearray((folder / name).read_bytes())
    content[position % len(content)] ^= 1 << bit
    (folder / name).write_bytes(content)
    with pytest.raises(ArtefactCorrupt, match="was altered"):
        verify_manifest(folder)


def test_a_truncated_file_is_found_by_its_size(sealed: Path) -> None:
    path = sealed / "package" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtefactCorrupt, match=r"package/model\.safetensors has \d+ bytes, the manifest says"):
        verify_manifest(sealed)


def test_a_missing_file_is_named(sealed: Path) -> None:
    (sealed / "serving" / "deep" / "vocabulary.json").unlink()
    with pytest.raises(ArtefactCorrupt, match=r"missing from the folder: serving/deep/vocabulary\.json"):
        verify_manifest(sealed)


def test_an_added_file_is_named(sealed: Path) -> None:
    (sealed / "package" / "extra.txt").write_text("x")
    with pytest.raises(ArtefactCorrupt, match=r"not in the manifest: package/extra\.txt"):
        verify_manifest(sealed)


def test_a_manifest_in_a_subfolder_is_a_file_like_any_other(folder: Path) -> None:
    (folder / "package" / "manifest.json").write_text("{}")
    assert "package/manifest.json" in write_manifest(folder, MANIFEST).files


@pytest.mark.parametrize("link", ["link.txt", "package/link.json", "linked_folder"])
def test_links_are_refused_when_sealing_and_when_verifying(sealed: Path, tmp_path_factory, link: str) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "x.txt").write_text("x")
    (sealed / link).symlink_to(outside if link == "linked_folder" else outside / "x.txt")
    with pytest.raises(ArtefactCorrupt, match="is a link or a device"):
        verify_manifest(sealed)
    (sealed / "manifest.json").unlink()
    with pytest.raises(ArtefactCorrupt, match="is a link or a device"):
        write_manifest(sealed, MANIFEST)


def test_a_named_pipe_does_not_hang_the_verification(sealed: Path) -> None:
    os.mkfifo(sealed / "pipe")
    with pytest.raises(ArtefactCorrupt, match="is a link or a device"):
        verify_manifest(sealed)


def test_a_linked_manifest_is_refused(sealed: Path) -> None:
    (sealed / "manifest.json").rename(sealed / "model_card.md")
    (sealed / "manifest.json").symlink_to(sealed / "model_card.md")
    with pytest.raises(ArtefactCorrupt, match="is a link"):
        read_manifest(sealed)


class Canary:
    """Unpickling this leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    "name", ["head.pkl", "head.JOBLIB", "pytorch_model.bin", "model.pt", "rng_state.pth", "m.pt2", "m.py"]
)
def test_files_that_could_run_code_cannot_be_sealed(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"anything")
    with pytest.raises(ArtefactCorrupt, match="of a kind no artefact may hold"):
        write_manifest(folder, MANIFEST)
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json", "LICENSE"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_renamed_pickle_is_refused_and_not_run(folder: Path, name: str, protocol: int) -> None:
    canary = folder.parent / "canary"
    (folder / name).write_bytes(pickle.dumps(Canary(canary), protocol))
    with pytest.raises(ArtefactCorrupt, match="is a pickle"):
        write_manifest(folder, MANIFEST)
    assert not canary.exists()


def test_a_folder_sealed_elsewhere_with_a_pickle_does_not_verify(sealed: Path) -> None:
    (sealed / "head.pkl").write_bytes(b"\x80\x04N.")
    rewrite(sealed, files=hash_files(sealed))
    with pytest.raises(ArtefactCorrupt, match=r"head\.pkl"):
        verify_manifest(sealed)


@pytest.mark.parametrize("head", [b"PK\x03\x04rest of a torch archive", b"\x93NUMPY\x01\x00"])
def test_renamed_archives_and_numpy_files_are_refused(folder: Path, head: bytes) -> None:
    (folder / "weights.data").write_bytes(head)
    with pytest.raises(ArtefactCorrupt, match=r"weights\.data is a"):
        write_manifest(folder, MANIFEST)


@pytest.mark.parametrize("content", [b"", b"\x01", struct.pack("<Q", 9) + b"{}", struct.pack("<Q", 2**63) + b"{}"])
def test_a_lying_safetensors_header_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtefactCorrupt, match="claims a header"):
        write_manifest(folder, MANIFEST)


def test_a_safetensors_header_over_the_format_s_limit_is_refused(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", 101_000_000))
        stream.truncate(101_000_100)
    with pytest.raises(ArtefactCorrupt, match="claims a header of 101000000 bytes"):
        write_manifest(folder, MANIFEST)


@pytest.mark.parametrize("name", ["package/config.json", "package/tokenizer_config.json", "adapter_config.json"])
@pytest.mark.parametrize("config", [{"auto_map": {"AutoModel": "evil.Model"}}, {"text_config": [{"auto_map": None}]}])
def test_configurations_that_name_code_are_refused(folder: Path, name: str, config: dict) -> None:
    (folder / name).write_text(json.dumps(config))
    with pytest.raises(ArtefactCorrupt, match="names code to import"):
        write_manifest(folder, MANIFEST)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '"\\ud800"x'])
def test_a_malformed_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "package" / "config.json").write_text(text)
    with pytest.raises(ArtefactCorrupt, match="is not JSON"):
        write_manifest(folder, MANIFEST)


@pytest.mark.parametrize(
    "name",
    ["../x.txt", "/etc/passwd", "a/../b", "./a", "a//b", "a\\b", "", ".", "a\x00b", "a/", "manifest.json", "\ud800"],
)
def test_paths_that_leave_the_folder_or_have_two_spellings_are_refused(sealed: Path, name: str) -> None:
    rewrite(sealed, files={name: {"sha256": "0" * 64, "size": 1}})
    with pytest.raises(ArtefactCorrupt, match="files is not of the expected form"):
        verify_manifest(sealed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", ["joy"]),
        ("labels", ["joy", "joy"]),
        ("labels", "joy"),
        ("labels", ["joy", ""]),
        ("labels", ["joy", "new\nline"]),
        ("input_fields", []),
        ("preprocessing", "1"),
        ("preprocessing", True),
        ("max_length", 0),
        ("recipe", []),
        ("calibration", None),
        ("metrics", 1),
        ("seed", -1),
        ("snapshot_digest", "abc"),
        ("libraries", {"torch": 2}),
        ("parameters", {"total": 1}),
        ("parameters", {"total": 1.5, "trainable": 1}),
        ("base_model", {"id": "minilm"}),
        ("created", "yesterday"),
        ("created", "2026-01-05T09:30:00"),
        ("classifier", ""),
        ("family", None),
        ("files", []),
        ("files", {"a": {"sha256": "0" * 64}}),
        ("files", {"a": {"sha256": "X" * 64, "size": 1}}),
        ("files", {"a": {"sha256": "0" * 64, "size": -1}}),
    ],
)
def test_a_mistyped_key_is_named(sealed: Path, name: str, value: object) -> None:
    rewrite(sealed, **{name: value})
    with pytest.raises(ArtefactCorrupt, match=f"{name} is not of the expected form"):
        read_manifest(sealed)


def test_a_missing_or_unknown_key_is_named(sealed: Path) -> None:
    rewrite(sealed, surprise=1)
    with pytest.raises(ArtefactCorrupt, match="surprise"):
        read_manifest(sealed)


def test_another_format_version_says_which_one_is_read(sealed: Path) -> None:
    rewrite(sealed, format_version=2)
    with pytest.raises(ArtefactCorrupt, match="format version 2; this release reads 1"):
        read_manifest(sealed)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"a": 1, "a": 2}', '{"seed": NaN}', "[" * 100_000, "9" * 5000, "\x00"]
)
def test_a_malformed_manifest_is_corrupt_and_nothing_else(sealed: Path, text: str) -> None:
    (sealed / "manifest.json").write_text(text)
    with pytest.raises(ArtefactCorrupt, match=r"manifest\.json"):
        read_manifest(sealed)


def test_a_folder_without_a_manifest_is_corrupt(tmp_path: Path) -> None:
    for act in (read_manifest, verify_manifest, manifest_digest):
        with pytest.raises(ArtefactCorrupt, match=r"manifest\.json cannot be read"):
            act(tmp_path)


def test_an_oversized_manifest_is_not_read(sealed: Path) -> None:
    with (sealed / "manifest.json").open("r+b") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(ArtefactCorrupt, match="larger than"):
        read_manifest(sealed)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from([entry.name for entry in dataclasses.fields(Manifest)]), JSON_VALUES)
def test_any_value_in_any_key_is_read_or_called_corrupt(name: str, value: object) -> None:
    try:
        read = Manifest.from_dict(MANIFEST.to_dict() | {name: value})
    except ArtefactCorrupt:
        return
    assert Manifest.from_dict(json.loads(json.dumps(read.to_dict()))).to_dict().keys() == read.to_dict().keys()


def test_files_can_be_checked_without_a_manifest(folder: Path) -> None:
    """As for checkpoints, which may hold what artefacts may not."""
    (folder / "optimizer.pt").write_bytes(b"state")
    files = hash_files(folder)
    check_files(folder, files)
    (folder / "optimizer.pt").write_bytes(b"other")
    with pytest.raises(ArtefactCorrupt, match=r"optimizer\.pt was altered"):
        check_files(folder, files)


@pytest.mark.clock
def test_a_hundred_megabytes_verify_quickly(folder: Path) -> None:
    """0.1 s on an idle core with SHA extensions; the limit is for a busy one without."""
    (folder / "model.onnx").write_bytes(os.urandom(2**20) * 100)
    write_manifest(folder, MANIFEST)
    started = time.perf_counter()
    verify_manifest(folder)
    assert time.perf_counter() - started < 2.0
