"""The cache: made once, shared, whole or not there at all."""

import threading

import numpy as np
import pytest
import torch

from domains.cache import cached, fingerprint
from domains.examples import Examples

KEY = {"family": "f", "domain": "d", "part": "train", "seed": 0}


class Builder:
    """Counts how often it is asked for examples."""

    def __init__(self, size=8):
        self.calls = 0
        self.examples = Examples(
            torch.arange(size * 3, dtype=torch.uint8).reshape(size, 3), torch.arange(size, dtype=torch.int64)
        )

    def __call__(self):
        self.calls += 1
        return self.examples


def same(one, other):
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.labels, other.labels)


def test_examples_are_built_once_and_then_mapped_from_disk(cache_folder):
    build = Builder()
    first, second = cached(KEY, build), cached(KEY, build)
    assert build.calls == 1
    assert same(first, build.examples) and same(second, build.examples)
    (entry,) = cache_folder.iterdir()
    assert entry.name.startswith("f-d-train-")
    assert isinstance(np.load(entry / "inputs.npy", mmap_mode="c"), np.memmap)


def test_another_key_is_another_entry(cache_folder):
    build = Builder()
    cached(KEY, build)
    cached(KEY | {"seed": 1}, build)
    assert build.calls == 2 and len(list(cache_folder.iterdir())) == 2


def test_changing_cached_examples_changes_nothing_on_disk():
    build = Builder()
    cached(KEY, build).inputs.fill_(7)
    assert same(cached(KEY, build), build.examples) and build.calls == 1


@pytest.mark.parametrize("damage", ["truncated", "missing", "scribbled"])
def test_a_damaged_entry_is_built_anew(cache_folder, damage):
    build = Builder(size=1000)
    cached(KEY, build)
    (file,) = cache_folder.glob("*/inputs.npy")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"no array at all")
    assert same(cached(KEY, build), build.examples) and build.calls == 2
    assert same(cached(KEY, build), build.examples) and build.calls == 2


def test_many_may_build_the_same_entry_at_once(cache_folder):
    barrier, results = threading.Barrier(8), []

    def build():
        barrier.wait(timeout=10)
        return Builder().examples

    threads = [threading.Thread(target=lambda: results.append(cached(KEY, build))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(same(result, Builder().examples) for result in results)
    assert len(list(cache_folder.iterdir())) == 1, "unfinished entries left behind"


def test_a_cache_that_cannot_be_written_only_warns(cache_folder, monkeypatch):
    cache_folder.write_text("a file where the folder should be")
    build = Builder()
    with pytest.warns(UserWarning, match="set FMTDA_CACHE to a writable folder"):
        assert same(cached(KEY, build), build.examples)


def test_the_fingerprint_changes_with_the_file(tmp_path):
    file = tmp_path / "usps.bz2"
    file.write_bytes(b"one")
    before = fingerprint([file])
    file.write_bytes(b"another")
    assert before != fingerprint([file]) and before[0][:2] == ("usps.bz2", 3)
