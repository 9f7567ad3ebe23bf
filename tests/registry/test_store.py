"""`registry.store`: a version is there as a whole or not at all, and no path leaves the store."""

import hashlib
import io
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kalimtak.core.errors import InvalidInput, NotFound, TooLarge, Unavailable
from registry import store
from registry.manifest import ArtefactCorrupt, manifest_digest, verify_manifest


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_published_version_is_what_was_staged(models_store: Path, make_staging: Callable[..., Path]) -> None:
    staging = make_staging()
    expected = manifest_digest(staging)
    assert store.publish(staging, "emotion", 1) == expected
    folder = store.version_folder("emotion", 1)
    assert folder == models_store / "emotion" / "1"
    assert verify_manifest(folder).classifier == "emotion"
    assert not staging.exists()
    assert list(store.published()) == [("emotion", 1, folder)]


def test_what_stands_in_the_way_is_kept_aside_and_not_overwritten(
    models_store: Path, make_staging: Callable[..., Path]
) -> None:
    left_over = store.publish(make_staging(), "emotion", 1)
    newer = store.publish(make_staging(), "emotion", 1)
    assert manifest_digest(store.version_folder("emotion", 1)) == newer != left_over
    (orphan,) = (models_store / "_orphans").iterdir()
    assert manifest_digest(orphan) == left_over


def test_a_folder_without_a_manifest_is_not_published(models_store: Path) -> None:
    staging = store.staging_folder(uuid.uuid4(), 1)
    with pytest.raises(ArtefactCorrupt):
        store.publish(staging, "emotion", 1)
    assert list(store.published()) == []


def test_a_reader_never_sees_half_a_version(models_store: Path, make_staging: Callable[..., Path]) -> None:
    """Another process lists the store while versions are published: whatever it sees verifies."""
    watch = (
        "import sys, pathlib; from registry.manifest import verify_manifest\n"
        "root = pathlib.Path(sys.argv[1]); print('ready', flush=True); seen = set()\n"
        "while len(seen) < 20:\n"
        "    for folder in root.glob('emotion/*'):\n"
        "        verify_manifest(folder); seen.add(folder.name)\n"
    )
    watcher = subprocess.Popen([sys.executable, "-c", watch, str(models_store)], stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    watcher.stdout.readline()
    for number in range(1, 21):
        store.publish(make_staging(), "emotion", number)
    watcher.communicate(timeout=30)
    assert watcher.returncode == 0


@pytest.mark.parametrize(
    ("slug", "number"),
    [("../x", 1), ("a/b", 1), ("", 1), ("_staging", 1), ("Emotion", 1), ("emotion", 0), ("emotion", True), (".", 1)],
)
def test_a_name_that_is_no_version_makes_no_path(models_store: Path, slug: str, number: Any) -> None:
    with pytest.raises(InvalidInput):
        store.version_folder(slug, number)


def test_a_link_out_of_the_store_is_refused(models_store: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (models_store / "emotion").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="leads out"):
        store.version_folder("emotion", 1)


@pytest.mark.parametrize("job_id", ["../../etc", "x", ""])
def test_a_staging_folder_is_named_by_a_job(models_store: Path, job_id: str) -> None:
    with pytest.raises(InvalidInput):
        store.staging_folder(job_id, 1)


def test_each_attempt_of_a_job_has_a_folder_of_its_own(models_store: Path) -> None:
    job = uuid.uuid4()
    assert store.staging_folder(job, 1) == store.staging_folder(job, 1) != store.staging_folder(job, 2)
    assert {(entry.job_id, entry.token) for entry in store.staged()} == {(job, 1), (job, 2)}


def test_only_the_staging_area_can_be_discarded(models_store: Path, make_staging: Callable[..., Path]) -> None:
    store.publish(make_staging(), "emotion", 1)
    with pytest.raises(InvalidInput):
        store.discard(store.version_folder("emotion", 1))
    staging = make_staging()
    store.discard(staging)
    assert not staging.exists()


def test_an_upload_is_kept_once_under_its_digest(models_store: Path, tmp_path: Path) -> None:
    content = b"text,label\nfine,joy\n" * 100_000
    (tmp_path / "rows.csv").write_bytes(content)
    digest = store.dataset_put(io.BytesIO(content))
    assert digest == hashlib.sha256(content).hexdigest() == store.dataset_put(tmp_path / "rows.csv")
    assert store.dataset_path(digest).read_bytes() == content
    assert names_in(models_store / "_datasets") == [digest]
    assert list(store.staged()) == []


def test_an_upload_over_the_limit_leaves_nothing(models_store: Path, settings: Any) -> None:
    settings.KALIMTAK_MAX_UPLOAD = 10
    assert store.dataset_put(io.BytesIO(b"x" * 10))
    with pytest.raises(TooLarge, match="KALIMTAK_MAX_UPLOAD"):
        store.dataset_put(io.BytesIO(b"x" * 11))
    assert list(store.staged()) == []
    assert len(names_in(models_store / "_datasets")) == 1


@pytest.mark.parametrize("digest", ["", "../manifest.json", "A" * 64, "0" * 64])
def test_a_file_that_was_never_uploaded_is_not_found(models_store: Path, digest: str) -> None:
    with pytest.raises(NotFound):
        store.dataset_path(digest)


def test_the_same_file_uploaded_by_many_at_once_is_one_file(models_store: Path) -> None:
    content = os.urandom(3_000_000)
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(store.dataset_put(io.BytesIO(content)))) for _ in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(digests) == {hashlib.sha256(content).hexdigest()}
    assert len(digests) == 4
    assert len(names_in(models_store / "_datasets")) == 1


def test_a_full_disk_is_noticed_before_anything_is_written(models_store: Path) -> None:
    store.free_space_check(1)
    with pytest.raises(Unavailable, match="lacks") as refused:
        store.free_space_check(2**60)
    assert refused.value.code == "disk_full"
