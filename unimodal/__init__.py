"""Unified multimodal masked diffusion: understand, draw, edit and interleave text and pictures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unimodal.pipeline import Pipeline, load
    from unimodal.results import EditOutput, GenerateOutput, InterleaveOutput, Stats, UnderstandOutput

__version__ = "0.1.0"

__all__ = [
    "EditOutput",
    "GenerateOutput",
    "InterleaveOutput",
    "Pipeline",
    "Stats",
    "UnderstandOutput",
    "__version__",
    "load",
]

_HOMES = {name: "unimodal.pipeline" if name in ("Pipeline", "load") else "unimodal.results" for name in __all__}


def __getattr__(name: str) -> Any:
    # The public names are found when they are used, so that importing one part does not import them all.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
