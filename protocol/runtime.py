"""Prepares where the computation runs: device, threads, memory, and torchvision beside a CPU build of torch."""

import ctypes
import importlib
import sys
from functools import cache

import torch

MALLOC = ((-1, 2**31 - 1), (-2, 64 * 2**20), (-3, 2**31 - 1))
"""mallopt(3): M_TRIM_THRESHOLD and M_MMAP_THRESHOLD as high as they go, M_TOP_PAD at 64 MiB."""

# `torch.library.define` lasts only as long as the library object that it was made on.
_operators: list[torch.library.Library] = []


def repair_torchvision() -> None:
    """Make ``import torchvision`` work beside a CPU build of torch; does nothing where it already works.

    The wheel of torchvision on PyPI is linked against CUDA. Beside a CPU build of torch its compiled library
    is not loaded, and the import stops at ``operator torchvision::nms does not exist``. Declaring the two
    operators that torchvision looks up while it is imported is enough for its data sets, transforms and
    models, none of which call them.

    Call it before the first import of torchvision, or of a library that imports it (torchmetrics, diffusers).
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
        importlib.import_module("torchvision")


def prepare_to_compute(threads: int) -> None:
    """Do what a process does before it trains or predicts: `set_threads` and `keep_freed_memory`."""
    set_threads(threads)
    keep_freed_memory()


def set_threads(count: int) -> None:
    """Fix the number of threads torch computes with.

    Sums are split by thread, so one and two threads differ in the last bits and training amplifies that; equal
    counts are bit-equal. Clients therefore always compute with one thread, wherever they run.
    """
    torch.set_num_threads(count)


@cache
def keep_freed_memory() -> bool:
    """Let this process keep what tensors free for the next ones; False where the C library is not glibc.

    As it comes, glibc hands large blocks back to the system, so that every training step begins on pages that the
    system first has to fill with zeros (measured by `benchmarks.training_step`). No result depends on it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all([mallopt(parameter, value) == 1 for parameter, value in MALLOC])


@cache
def choose_device(device: str) -> torch.device:
    """Turn the setting ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises
    ------
    ValueError
        If ``cuda`` is asked for and torch sees no GPU.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device=cuda was given, but torch sees no GPU here; use device=cpu or device=auto, "
            "or install a CUDA build of torch"
        )
    return torch.device(device)
