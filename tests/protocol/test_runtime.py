"""Where it runs: the repair of torchvision, threads, the device."""

import resource
import sys

import pytest
import torch

from fmtda.protocol import runtime


def test_repairing_torchvision_twice_changes_nothing_the_second_time():
    runtime.repair_torchvision()
    first, libraries = sys.modules["torchvision"], len(runtime._operators)
    runtime.repair_torchvision()
    assert sys.modules["torchvision"] is first
    assert len(runtime._operators) == libraries <= 1


def test_torchvision_reads_data_and_transforms_after_the_repair():
    runtime.repair_torchvision()
    from torchvision import datasets
    from torchvision.transforms import v2

    assert datasets.MNIST.__name__ == "MNIST"
    assert v2.functional.resize(torch.zeros(1, 3, 8, 8), [4, 4]).shape == (1, 3, 4, 4)


def test_an_error_of_torchvision_that_is_not_the_known_one_is_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(runtime.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        runtime.repair_torchvision()


def test_threads_are_what_was_asked_for():
    before = torch.get_num_threads()
    try:
        runtime.set_threads(2)
        assert torch.get_num_threads() == 2
        runtime.set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        runtime.set_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_is_used_again_instead_of_fresh_pages():
    assert runtime.keep_freed_memory()
    count, size = 40, 8 * 2**20

    def page_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            torch.ones(size, dtype=torch.uint8)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    page_faults()  # the first time around the memory is fresh
    assert page_faults() < count * size / resource.getpagesize() / 10


def test_preparing_a_process_sets_threads_and_memory(monkeypatch):
    called = []
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: called.append("memory"))
    before = torch.get_num_threads()
    try:
        runtime.prepare_to_compute(2)
        assert torch.get_num_threads() == 2 and called == ["memory"]
    finally:
        runtime.set_threads(before)


@pytest.fixture
def anew():
    """The device is chosen once in a process: chosen anew in a test, and after it."""
    runtime.choose_device.cache_clear()
    yield
    runtime.choose_device.cache_clear()


@pytest.mark.usefixtures("anew")
def test_cuda_without_a_gpu_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.choose_device("auto") == runtime.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=cuda .* use device=cpu or device=auto"):
        runtime.choose_device("cuda")


@pytest.mark.usefixtures("anew")
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.choose_device("auto") == torch.device("cuda")
    assert runtime.choose_device("cpu") == torch.device("cpu")
