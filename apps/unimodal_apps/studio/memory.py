"""How much memory this process has needed at most."""

import resource
import sys

import torch


def reset_peak(device: torch.device) -> None:
    """Begins to measure anew where that is possible, which is on a CUDA device."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Bytes on a CUDA device since `reset_peak`; elsewhere of the whole process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, other systems kilobytes.
    return peak if sys.platform == "darwin" else peak * 1024
