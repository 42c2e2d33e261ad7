"""The cache: made once, shared, whole or not there at all."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from fmtda.domains.cache import ABANDONED_AFTER, cached, cached_rows, fingerprint
from fmtda.domains.examples import Examples

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
        barrier.wait(timeout=60)
        return Builder().examples

    threads = [threading.Thread(target=lambda: results.append(cached(KEY, build))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and all(same(result, Builder().examples) for result in results)
    assert len(list(cache_folder.iterdir())) == 1, "unfinished entries left behind"


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(cache_folder):
    left, written = cache_folder / ".unfinished-left", cache_folder / ".unfinished-written"
    yesterday = time.time() - ABANDONED_AFTER - 60
    for folder in (left, written):
        folder.mkdir(parents=True)
        (folder / "inputs.npy").write_bytes(b"half")
        os.utime(folder, (yesterday, yesterday))
    os.utime(left / "inputs.npy", (yesterday, yesterday))
    cached(KEY, Builder())
    assert not left.exists() and written.exists()


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


class Blocks:
    """Twelve examples in blocks of five, five and two; counts how often it is asked for them."""

    def __init__(self, label_shape=(), stop_after=None):
        self.calls = 0
        self.stop_after = stop_after
        self.examples = Examples(
            torch.arange(12 * 6, dtype=torch.uint8).reshape(12, 3, 2), torch.arange(12).reshape(12, *label_shape)
        )

    def __call__(self):
        self.calls += 1
        for number, start in enumerate(range(0, 12, 5)):
            if number == self.stop_after:
                raise RuntimeError("stopped")
            yield self.examples.select(range(start, min(start + 5, 12)))


@pytest.mark.parametrize("label_shape", [(), (1, 1)], ids=["a label each", "a map each"])
def test_blocks_are_joined_on_disk_once(cache_folder, label_shape):
    blocks = Blocks(label_shape)
    first, second = cached_rows(KEY, 12, blocks), cached_rows(KEY, 12, blocks)
    assert blocks.calls == 1
    assert same(first, blocks.examples) and same(second, blocks.examples)
    (entry,) = cache_folder.iterdir()
    assert isinstance(np.load(entry / "inputs.npy", mmap_mode="c"), np.memmap)


def test_streamed_and_whole_entries_are_the_same_files(cache_folder):
    blocks = Blocks()
    cached_rows(KEY, 12, blocks)
    cached(KEY | {"seed": 1}, lambda: blocks.examples)
    one, other = ({file.name: file.read_bytes() for file in entry.glob("*.npy")} for entry in cache_folder.iterdir())
    assert one == other and set(one) == {"inputs.npy", "labels.npy"}


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_stopped_stream_leaves_nothing_behind(cache_folder, stop_after):
    with pytest.raises(RuntimeError, match="stopped"):
        cached_rows(KEY, 12, Blocks(stop_after=stop_after))
    assert list(cache_folder.iterdir()) == []
    assert same(cached_rows(KEY, 12, Blocks()), Blocks().examples)


@pytest.mark.parametrize("count", [11, 13])
def test_another_number_of_rows_than_announced_is_no_entry(cache_folder, count):
    with pytest.raises(ValueError, match=f"12 rows came where {count} were announced"):
        cached_rows(KEY, count, Blocks())
    assert list(cache_folder.iterdir()) == []


def test_blocks_of_different_shapes_are_no_entry(cache_folder):
    def blocks():
        yield Examples(torch.zeros(2, 3), torch.zeros(2))
        yield Examples(torch.zeros(2, 4), torch.zeros(2))

    with pytest.raises(ValueError, match=r"rows of shape and type .*4.* follow rows of .*3"):
        cached_rows(KEY, 4, blocks)
    assert list(cache_folder.iterdir()) == []


def test_of_many_who_ask_at_once_one_streams(cache_folder):
    blocks, results = Blocks(), []
    threads = [threading.Thread(target=lambda: results.append(cached_rows(KEY, 12, blocks))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blocks.calls == 1 and len(results) == 8 and all(same(result, blocks.examples) for result in results)
    assert len(list(cache_folder.iterdir())) == 1, "locks or unfinished entries left behind"


def _stream_for_ever(started):
    def blocks():
        yield Blocks().examples
        started.set()
        time.sleep(600)

    cached_rows(KEY, 24, blocks)


def test_nobody_waits_for_a_builder_that_died(cache_folder):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    builder = context.Process(target=_stream_for_ever, args=(started,))
    builder.start()
    try:
        assert started.wait(timeout=60)
    finally:
        os.kill(builder.pid, signal.SIGKILL)
        builder.join()
    assert same(cached_rows(KEY, 12, Blocks()), Blocks().examples)


def test_streams_stay_in_memory_where_the_cache_cannot_be_written(cache_folder):
    cache_folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="set FMTDA_CACHE to a writable folder"):
        assert same(cached_rows(KEY, 12, Blocks()), Blocks().examples)


def test_a_full_disk_only_warns(cache_folder, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit raises OSError instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.warns(UserWarning, match="cannot be written"):
            examples = cached_rows(KEY, 12, Blocks())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(examples, Blocks().examples) and list(cache_folder.iterdir()) == []
