"""Unified multimodal masked diffusion: understand, draw, edit and interleave text and pictures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unimodal.diffusion.sprint import SprintOptions
    from unimodal.infill import Gap, exactly_words, json_template
    from unimodal.pipeline import Pipeline, load
    from unimodal.results import (
        ChatOutput,
        EditOutput,
        GenerateOutput,
        InfillOutput,
        InterleaveOutput,
        LikelihoodOutput,
        Stats,
        UnderstandOutput,
    )

__version__ = "0.1.0"

_HOMES = {
    "ChatOutput": "results",
    "EditOutput": "results",
    "Gap": "infill",
    "GenerateOutput": "results",
    "InfillOutput": "results",
    "InterleaveOutput": "results",
    "LikelihoodOutput": "results",
    "Pipeline": "pipeline",
    "SprintOptions": "diffusion.sprint",
    "Stats": "results",
    "UnderstandOutput": "results",
    "exactly_words": "infill",
    "json_template": "infill",
    "load": "pipeline",
}

__all__ = [
    "ChatOutput",
    "EditOutput",
    "Gap",
    "GenerateOutput",
    "InfillOutput",
    "InterleaveOutput",
    "LikelihoodOutput",
    "Pipeline",
    "SprintOptions",
    "Stats",
    "UnderstandOutput",
    "__version__",
    "exactly_words",
    "json_template",
    "load",
]


def __getattr__(name: str) -> Any:
    # The public names are found when they are used, so that importing one part does not import them all.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"unimodal.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
