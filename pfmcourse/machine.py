"""The machine under a training run: its device, its memory, whether bf16 pays on it, and its random numbers."""

import atexit
import functools
import hashlib
import os
import random
import re
import sys
import time
from pathlib import Path

import numpy
import psutil
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState

from pfmcourse.base import CourseError


def device() -> torch.device:
    """The device to train on: Accelerate's choice (CUDA, then Apple's MPS, then CPU), or ``PFMCOURSE_DEVICE``.

    Under ``torchrun`` each process gets its own. Raises CourseError for a device that this machine does not have.
    """
    wanted = os.environ.get("PFMCOURSE_DEVICE", "").strip().lower()
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted and not present.get(wanted, False):
        have = ", ".join(name for name, there in present.items() if there)
        raise CourseError(
            f"PFMCOURSE_DEVICE={wanted!r}, but this machine offers: {have}. Set one of these, or unset it."
        )
    # Accelerate joins several CPU processes only when told so; and it keeps its first choice for the whole process.
    cpu = wanted == "cpu" or not (present["cuda"] or present["mps"])
    state = PartialState(cpu=cpu)
    if (state.device.type == "cpu") != cpu and state.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
        state = PartialState(cpu=cpu)
    if state.num_processes > 1:
        _leave_in_order()
    return state.device


@functools.cache
def _leave_in_order() -> None:
    """Have this process say goodbye to the others when it ends; NCCL complains aloud about those that do not."""

    def leave() -> None:
        # After an error the others are in the middle of a step, and the goodbye would wait for them.
        if torch.distributed.is_initialized() and getattr(sys, "last_value", None) is None:
            torch.distributed.destroy_process_group()

    atexit.register(leave)


def generator_of(*numbers: int) -> torch.Generator:
    """Random numbers on the CPU that depend on all of ``numbers``: a seed and an epoch, say."""
    seed = 0
    for number in numbers:
        seed = seed * 1_000_003 + number
    return torch.Generator().manual_seed(seed)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002  (libraries still draw from the global state)
    torch.manual_seed(seed)


def peak_memory_mb(where: torch.device) -> float:
    """Peak memory in MB (10^6 bytes): of tensors on a CUDA device, else of this whole process."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # Linux. getrusage would report the parent's peak where that was higher.
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return int(found[1]) * 1024 / 1e6
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 1e6
    import resource  # macOS: bytes

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@functools.cache
def bf16_is_faster(kind: str) -> bool:
    """Whether bf16 autocast beats fp32 by a fifth or more on devices of type ``kind``; measured once per process.

    A linear layer's forward and backward are timed, casts included. Only hardware that multiplies bf16 natively is
    asked. Models of very small or varying shapes may still be faster in fp32: their recipes say ``precision="fp32"``.
    """
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = kind == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    if not native:
        return False
    rows, width = (8192, 2048) if kind == "cuda" else (1024, 256)
    inputs = torch.full((rows, width), 0.5, device=kind)
    weight = torch.full((width, width), 0.5, device=kind, requires_grad=True)

    def seconds(bf16: bool) -> float:
        times = []
        for _ in range(5):  # the first ones also build kernels; the fastest counts
            start = time.perf_counter()
            with torch.autocast(kind, torch.bfloat16, enabled=bf16):
                result = inputs @ weight
            torch.autograd.grad(result.sum(), weight)[0][0, 0].item()  # .item() waits for a GPU
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(bf16=True) * 1.2 < seconds(bf16=False)


def mix_seed(*numbers: int) -> int:
    """A seed from several integers by hashing, so that neighbouring steps get unrelated random numbers."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), "little")


def seed_torch(seed: int, where: torch.device) -> None:
    """torch.manual_seed for the devices in use only; the original takes a stack trace in every call without a GPU."""
    torch.default_generator.manual_seed(seed)
    if where.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif where.type == "mps":
        torch.mps.manual_seed(seed)
