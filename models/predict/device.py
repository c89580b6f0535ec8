"""Where torch computes and with how many threads. The only place that names cuda."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hyperprep.exceptions import DeviceError


def pick_device(name: str = "auto") -> torch.device:
    """Device to compute on.

    Parameters
    ----------
    name
        ``"auto"`` (a GPU where there is one, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    DeviceError
        If the name is unknown, or a GPU was asked for by name and is not there.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    wanted = name.strip().lower()
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cpu":
        return torch.device("cpu")
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (":" in wanted and not number.isdecimal()):
        raise DeviceError(f"Unknown device '{name}': use auto, cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise DeviceError(
            f"Device '{name}' was asked for, but torch finds no GPU here: use --device cpu or auto."
        )
    if number and int(number) >= count:
        raise DeviceError(f"Device '{name}' was asked for, but there are only {count} GPUs, numbered from 0.")
    return torch.device(wanted)


def device_of_process(name: str, local_rank: int) -> str:
    """Name the device of one of several processes on a machine that train together: a GPU of its own.

    Parameters
    ----------
    name
        As :func:`pick_device` takes it.
    local_rank
        Number of the process on this machine.

    Raises
    ------
    DeviceError
        If all processes would be on the same GPU.

    Examples
    --------
    >>> device_of_process("cpu", 1), device_of_process("cuda", 1)
    ('cpu', 'cuda:1')
    """
    if name.startswith("cuda:"):
        raise DeviceError(
            f"Device '{name}' would be that of every process: use --device cuda, then each has its own."
        )
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{local_rank}"
    return "cpu" if name == "auto" else name


@contextmanager
def explained_memory(device: str, step: str) -> Iterator[None]:
    """Say what to do when a GPU runs out of memory inside the block; the CPU never takes over by itself.

    Parameters
    ----------
    device
        Where the block computes.
    step
        What it does, for the message.

    Raises
    ------
    DeviceError
        In place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{step} ran out of memory on the GPU ({device}): {str(error).splitlines()[0]} Nothing was "
            "computed on the CPU instead. Give the GPU to this step alone (n_gpu_procs of the plugin file, "
            "other programs), use a GPU with more memory, or run with --device cpu."
        ) from error


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Run a block with a number of torch threads, then put the previous number back.

    Memory that the block frees stays with the process until its end (:func:`_freed_memory_kept`).

    Parameters
    ----------
    count
        Threads for operations on the CPU; ``None`` leaves torch's own choice.

    Yields
    ------
    int
        Threads in use.

    Raises
    ------
    ValueError
        If the number is below 1.

    Examples
    --------
    >>> with torch_threads(1) as threads:
    ...     threads
    1
    """
    if count is not None and count < 1:
        raise ValueError(f"a number of threads is at least 1, not {count}")
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        with _freed_memory_kept():
            yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Keep large freed blocks within a block of code and give them back to the system at its end.

    glibc asks the system anew for every block above 32 MiB. The system then clears each page at its first
    use, which takes longer than adding two volumes that fill it. Other C libraries are left alone.
    """
    try:
        libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        mallopt, trim = (libc.mallopt, libc.malloc_trim) if libc else (None, None)
    except (OSError, AttributeError):
        mallopt = trim = None
    if mallopt is None or trim is None:
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**26)
        trim(0)
