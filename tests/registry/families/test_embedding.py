"""The embedding family: a text is encoded once in its life, and what is kept of it may be lost at any time."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry import families
from registry.families import agreement, embedding, frozen_encoder
from registry.families.base import Example, FamilyError, FitRequest, Stopped
from registry.families.base_models import find_base_model
from registry.families.onnx_predictor import Graph
from registry.families.probes import check_probes
from registry.families.tokenisation import Tokens
from registry.families.vector_cache import VectorCache
from registry.labels import label_text_of
from tests.registry.families.material import (
    LABELS,
    Built,
    Listener,
    build,
    request_for,
    seal,
    sentences,
    settings_of,
    shared_cache,
)

ROOT = Path(__file__).parents[3]
Builder = Callable[..., Built]


def numbered(count: int, start: int = 0) -> list[Example]:
    """No two texts alike."""
    plain = sentences(start + count, seed=3)[start:]
    return [Example((f"{each.fields[0]} {start + number}",), each.label) for number, each in enumerate(plain)]


@pytest.fixture
def cache(built: Builder, tmp_path: Path) -> Path:
    """A cache with the converted tiny encoder and no vectors."""
    built("embedding")
    shutil.copytree(shared_cache() / "encoders", tmp_path / "cache" / "encoders")
    return tmp_path / "cache"


@pytest.fixture
def request_of(tmp_path: Path, tiny_encoder: Path, cache: Path) -> Callable[..., FitRequest]:
    numbers = itertools.count()

    def make(**changes: object) -> FitRequest:
        settings = settings_of("embedding", tiny_encoder)
        values = {"train": numbered(60), "valid": numbered(20, start=100), "cache": cache, **changes}
        return request_for(tmp_path / str(next(numbers)), *settings, **values)

    return make


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Tokens]:
    """What went through a graph while training."""
    seen: list[Tokens] = []

    class Counting(Graph):
        def run(self, tokens: Tokens) -> np.ndarray:
            seen.append(tokens)
            return super().run(tokens)

    monkeypatch.setattr(embedding, "Graph", Counting)
    return seen


# ---- what is encoded -------------------------------------------------------------------------------------------------


def test_a_second_fit_encodes_the_new_texts_alone(request_of: Callable[..., FitRequest], encoded: list[Tokens]) -> None:
    embedding.fit(request_of())
    assert len(encoded) == 60 + 20 + 20  # the validation texts by both graphs
    encoded.clear()
    result = embedding.fit(request_of(train=numbered(70)))
    assert len(encoded) == 10
    assert "10 of 110 vectors computed, the others were known." in result.notes
    encoded.clear()
    embedding.fit(request_of(train=numbered(70)))
    assert encoded == []


def test_a_text_that_comes_twice_is_encoded_once(request_of: Callable[..., FitRequest], encoded: list[Tokens]) -> None:
    embedding.fit(request_of(train=numbered(30) * 3, valid=[]))
    assert len(encoded) == 30


def test_another_greatest_length_is_another_vector(
    request_of: Callable[..., FitRequest], encoded: list[Tokens], tiny_encoder: Path, tmp_path: Path, cache: Path
) -> None:
    embedding.fit(request_of())
    encoded.clear()
    settings = [f"model_config.model_name={tiny_encoder / 'wide'}", "model_config.max_length=8"]
    values = {"train": numbered(60), "valid": numbered(20, start=100), "cache": cache}
    result = embedding.fit(request_for(tmp_path / "short", *settings, **values))
    assert len(encoded) == 100
    assert any("longer than max_length" in note for note in result.notes)


def test_what_was_encoded_before_a_stop_is_kept(
    request_of: Callable[..., FitRequest], encoded: list[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "_CHUNK", 10)
    with pytest.raises(Stopped):
        embedding.fit(request_of(reporter=Listener(stop_after=4)))
    before = len(encoded)
    assert 10 <= before < 60
    embedding.fit(request_of())
    assert len(encoded) == 100


def test_with_a_warm_cache_torch_is_not_even_imported(
    request_of: Callable[..., FitRequest], tiny_encoder: Path
) -> None:
    request = request_of()
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from registry.families import embedding\n"
        "from tests.registry.families.material import request_for, settings_of\n"
        f"settings = settings_of('embedding', Path({str(tiny_encoder)!r}))\n"
        f"folder, cache = Path({str(request.out.parent)!r}), Path({str(request.cache)!r})\n"
        "embedding.fit(request_for(folder, *settings, cache=cache))\n"
        "print([name for name in ('torch', 'transformers', 'django') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_cache_a_run_leaves_nothing_behind(
    request_of: Callable[..., FitRequest], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    converted = next((cache / "encoders").glob("*-v*"))
    monkeypatch.setattr(frozen_encoder, "_convert", lambda base, folder: shutil.copytree(converted, folder))
    embedding.fit(request_of(cache=None))
    assert not list(tmp_path.glob("kalimtak-*"))


# ---- the vectors -----------------------------------------------------------------------------------------------------


def test_answers_are_the_head_on_the_mean_of_the_last_layer(
    request_of: Callable[..., FitRequest], tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `package/README.md` says it: with transformers, the head's file and nothing of ours."""
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setattr(agreement, "MIN_AGREEMENT", 1.1)  # int8 rounds, and whether it answers depends on the processor
    request = request_of()
    folder = seal("embedding", request, embedding.fit(request))
    described = json.loads((folder / "package" / "head.json").read_text())
    assert described["encoder"]["sha256"] == find_base_model(str(tiny_encoder / "wide")).sha256
    tokens = AutoTokenizer.from_pretrained(tiny_encoder / "wide")(["we like banana", "a car"], padding=True)
    tokens = {name: torch.tensor(values) for name, values in tokens.items()}
    with torch.inference_mode():
        states = AutoModel.from_pretrained(tiny_encoder / "wide")(**tokens).last_hidden_state.numpy()
    there = tokens["attention_mask"].numpy()[..., np.newaxis]
    vectors = (states * there).sum(axis=1) / there.sum(axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    head = load_file(str(folder / "package" / "model.safetensors"))
    scores = (vectors @ head["coefficients"] + head["intercepts"]) / families.read_manifest(folder).calibration[
        "temperature"
    ]
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    answers = families.load(folder).predict([("we like banana",), ("a car",)])
    np.testing.assert_allclose([answer.probabilities for answer in answers], expected, atol=1e-4)


def test_int8_answers_where_it_is_as_good(
    request_of: Callable[..., FitRequest], monkeypatch: pytest.MonkeyPatch, built: Builder
) -> None:
    serving = built("embedding")[0] / "serving"
    kept = (serving / "model.int8.onnx").is_file()
    assert kept == any(note.startswith("int8 answers") for note in built("embedding")[2].notes)
    monkeypatch.setattr(agreement, "MIN_AGREEMENT", 0.0)
    monkeypatch.setattr(agreement, "MAX_F1_DROP", 1.0)
    request = request_of()
    result = embedding.fit(request)
    assert any(note.startswith("int8 answers") for note in result.notes)
    assert (request.out / "serving" / "model.int8.onnx").is_file()
    assert check_probes(seal("embedding", request, result)) == []


def test_the_encoder_counts_among_the_weights_and_only_the_head_learns(built: Builder) -> None:
    parameters = built("embedding")[2].parameters
    assert parameters["trainable"] == 64 * 3 + 3
    assert parameters["total"] > 20_000


def test_several_labels_of_a_text_are_learnt_apart(tiny_encoder: Path, tmp_path: Path) -> None:
    plain = sentences(600, seed=11)
    pairs = [
        Example((f"{one.fields[0]} and {other.fields[0]}",), label_text_of({one.label, other.label}, LABELS))
        for one, other in itertools.pairwise(plain[:301])
    ]
    nothing = [Example((f"{'tell me about they say it is we like'[: 10 + number % 20]}",), "|") for number in range(60)]
    examples = [*plain[300:], *pairs, *nothing]
    random.Random(5).shuffle(examples)
    changes = {"train": examples[120:], "valid": examples[:120], "multi_label": True}
    settings = (*settings_of("embedding", tiny_encoder), "training_config.class_weights=balanced")
    folder, _, result = build("embedding", tmp_path, *settings, **changes)
    assert set(result.calibration["thresholds"]) == set(LABELS)
    assert result.history[-1]["eval_micro_f1"] > 0.8
    (both,) = families.load(folder).predict([("there was plum grape and I saw tractor car",)])
    assert {LABELS[index] for index in both.probabilities.argsort()[-2:]} == {"fruit", "vehicle"}
    assert both.probabilities.sum() > 1.2


# ---- a cache that may be lost ----------------------------------------------------------------------------------------


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def vectors_of(numbers: range, width: int = 4) -> dict[bytes, tuple[np.ndarray, bool]]:
    return {key(number): (np.full(width, number, dtype=np.float32), number % 2 == 1) for number in numbers}


def test_vectors_come_back_as_they_were_put(tmp_path: Path) -> None:
    VectorCache(tmp_path, 4).put(vectors_of(range(5)))
    found = VectorCache(tmp_path, 4).get([key(3), key(9), key(0)])
    assert set(found) == {key(0), key(3)}
    assert (found[key(3)][0].tolist(), found[key(3)][1]) == ([3.0] * 4, True)
    assert VectorCache(tmp_path, 5).get([key(3)]) == {}  # of another width


def test_the_longest_unused_vectors_go_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VectorCache(tmp_path, 1024, most_bytes=4 * 2**20)
    now = [1_000_000]
    monkeypatch.setattr("registry.families.vector_cache.time.time", lambda: now[0])
    for start in range(0, 3000, 100):
        now[0] += 100_000
        cache.put(vectors_of(range(start, start + 100), width=1024))
        assert set(cache.get([key(5)])) == {key(5)}, "what is used stays"
        assert (tmp_path / "vectors.sqlite3").stat().st_size < 5 * 2**20
    left = {int.from_bytes(each, "big") for each in cache.get([key(number) for number in range(3000)])}
    assert {2999, 5} <= left
    assert 7 not in left
    assert 500 < len(left) < 1100


@pytest.mark.parametrize("damage", ["garbage", "truncated", "deleted", "another format", "not a file"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str) -> None:
    cache, path = VectorCache(tmp_path, 4), tmp_path / "vectors.sqlite3"
    cache.put(vectors_of(range(200)))
    if damage == "garbage":
        path.write_bytes(random.Random(1).randbytes(70_000))
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "another format":
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
    else:
        path.unlink()
    if damage == "not a file":
        path.mkdir()  # nothing can be kept, and nothing fails
    assert cache.get([key(1)]) == {}
    cache.put(vectors_of(range(3)))
    assert set(cache.get([key(1)])) == ({key(1)} if damage != "not a file" else set())


def test_a_vector_that_is_not_whole_counts_as_unknown(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path, 4)
    cache.put(vectors_of(range(3)))
    with sqlite3.connect(tmp_path / "vectors.sqlite3") as database:
        database.execute("UPDATE vectors SET vector = zeroblob(16) WHERE key = ?", [key(1)])
        database.execute("UPDATE vectors SET vector = zeroblob(3) WHERE key = ?", [key(2)])
    assert set(cache.get([key(0), key(1), key(2)])) == {key(0)}


def test_two_runs_may_share_it(tmp_path: Path) -> None:
    def work(first: int) -> None:
        cache = VectorCache(tmp_path, 4)
        for start in range(first, first + 100, 10):
            cache.put(vectors_of(range(start, start + 10)))
            assert len(cache.get([key(number) for number in range(first, start + 10)])) == start + 10 - first

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 50, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(VectorCache(tmp_path, 4).get([key(number) for number in range(2000)])) == 250


def test_no_text_is_kept(request_of: Callable[..., FitRequest], cache: Path) -> None:
    embedding.fit(request_of(train=[*numbered(30), Example(("zebra@example.org lorry",), "vehicle")]))
    kept = (cache / "vectors.sqlite3").read_bytes()
    assert b"zebra" not in kept
    assert b"lorry" not in kept


# ---- the converted encoder -------------------------------------------------------------------------------------------


def test_a_converted_encoder_that_was_altered_is_not_used(
    request_of: Callable[..., FitRequest], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (cache / "encoders").glob("*-v*")
    whole = shutil.copytree(folder, tmp_path / "whole")
    altered = bytearray((folder / "model.onnx").read_bytes())
    altered[-1] ^= 1
    (folder / "model.onnx").write_bytes(altered)
    converted: list[str] = []

    def convert(base: object, target: Path) -> None:
        converted.append(target.name)
        shutil.copytree(whole, target, dirs_exist_ok=True)

    monkeypatch.setattr(frozen_encoder, "_convert", convert)
    embedding.fit(request_of())
    assert converted == [folder.name]
    embedding.fit(request_of())
    assert converted == [folder.name]


def test_drafts_of_the_killed_and_encoders_nobody_uses_are_removed(
    request_of: Callable[..., FitRequest], cache: Path
) -> None:
    (folder,) = (cache / "encoders").glob("*-v*")
    for name in ("draft-abc", "0" * 64 + "-v1"):
        (folder.parent / name).mkdir()
        os.utime(folder.parent / name, (0, 0))
    (folder.parent / "draft-new").mkdir()
    embedding.fit(request_of())
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "draft-new", "lock"}


def test_a_run_that_waits_for_another_s_conversion_can_be_stopped(
    request_of: Callable[..., FitRequest], cache: Path
) -> None:
    import fcntl

    with (cache / "encoders" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Stopped, match="another run"):
            embedding.fit(request_of(reporter=Listener(stop_after=0)))


def test_a_length_the_encoder_cannot_read_is_refused(request_of: Callable[..., FitRequest]) -> None:
    request = request_of()
    model = dataclasses.replace(request.recipe.model, max_length=512)
    long = dataclasses.replace(request, recipe=dataclasses.replace(request.recipe, model=model))
    with pytest.raises(FamilyError, match=r"at most 64 tokens; set model_config\.max_length to 64 or less"):
        embedding.fit(long)


def test_what_is_no_text_encoder_is_refused_in_one_line(request_of: Callable[..., FitRequest], tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    request = request_of()
    model = dataclasses.replace(request.recipe.model, model_name=str(folder))
    odd = dataclasses.replace(request, recipe=dataclasses.replace(request.recipe, model=model))
    with pytest.raises(FamilyError, match=r"cannot be used as a text encoder: its files lack .* weights") as caught:
        embedding.fit(odd)
    assert "\n" not in str(caught.value)
    assert not list((odd.cache / "encoders").glob("draft-*"))


def test_texts_are_encoded_outside_any_training_and_once(
    cache: Path, tiny_encoder: Path, encoded: list[Tokens]
) -> None:
    texts = [each.fields for each in numbered(12)]
    how = {"model_name": str(tiny_encoder), "max_length": 32}
    vectors = embedding.encode(texts, cache, Listener(), **how)
    assert len(encoded) == 12
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    assert embedding.encode(texts[::-1], cache, Listener(), **how)[::-1].tolist() == vectors.tolist()
    assert len(encoded) == 12
    with pytest.raises(FamilyError, match="no folder"):
        embedding.encode(texts, cache, Listener(), model_name="/no/such/folder")
