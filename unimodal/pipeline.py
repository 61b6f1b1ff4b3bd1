"""`Pipeline`: everything that can be done with one checkpoint."""

from pathlib import Path
from typing import Any

import torch

from unimodal.jobs.chat import Chat
from unimodal.jobs.edit import Edit
from unimodal.jobs.generate import Generate
from unimodal.jobs.infill import Infill
from unimodal.jobs.interleave import Interleave
from unimodal.jobs.likelihood import Likelihood
from unimodal.jobs.published import Published
from unimodal.jobs.understand import Understand


class Pipeline(Understand, Published, Generate, Edit, Interleave, Chat, Infill, Likelihood):
    """One checkpoint, loaded, and what it can do; its parts are those of `Components`."""


def load(
    name_or_path: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    **hub: Any,
) -> Pipeline:
    """Short for `Pipeline.from_pretrained`; `hub` are its other arguments."""
    return Pipeline.from_pretrained(name_or_path, device=device, dtype=dtype, **hub)
