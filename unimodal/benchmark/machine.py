"""On what something was measured: the machine, the versions of the libraries, and the memory that was used."""

import contextlib
import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import psutil
import torch

LIBRARIES = ("unimodal", "torch", "transformers", "diffusers", "accelerate")

_PROCESS = Path("/proc/self")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, memory, accelerator and system, and how busy the machine is: `load` is the number of processes that
    ran or waited in the last minute.
    """
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(psutil.Process().cpu_affinity() or []) if hasattr(psutil.Process, "cpu_affinity") else None,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "load": round(psutil.getloadavg()[0], 1),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
    return found


def versions() -> dict[str, str | None]:
    """Python and the libraries that time depends on; None where one is not installed as a package."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """Starts a new measurement of `peak_memory`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # elsewhere the peak is that of the whole process
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int | None:
    """The most bytes in use since `forget_peak`: of the device's allocator on CUDA, of the whole process elsewhere.

    None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = _PROCESS / "status"
    if not status.is_file():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(found.group(1)) * 1024 if found else None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file() and (found := re.search(r"model name\s*:\s*(.+)", information.read_text())):
        return found.group(1)
    return platform.processor() or platform.machine()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
