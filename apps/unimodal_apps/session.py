"""What the verbs that use a model have in common: loading it, seeding it, and telling what came out."""

import json
import secrets
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

import unimodal

if TYPE_CHECKING:
    import torch

    from unimodal import Pipeline, Stats


def open_pipeline(model: str, device: str | None, dtype: str | None) -> "Pipeline":
    """Loads a checkpoint; its progress bars show on a terminal only, on the error stream."""
    try:
        pipe = unimodal.load(model, device=device, dtype=dtype)
    except ValueError as error:
        # Said in the words of the command line.
        raise ValueError(str(error).replace("name_or_path:", "--model:", 1)) from error
    pipe.set_progress_bar_config(disable=not sys.stderr.isatty())
    return pipe


def pick_seed(seed: int | None) -> int:
    """The seed that was stated, or a new one.

    Raises:
        ValueError: more than 64 bits.
    """
    if seed is not None and not 0 <= seed < 2**64:
        raise ValueError(f"--seed: got {seed}, allowed are 0 to 2**64 - 1")
    return secrets.randbelow(2**31) if seed is None else seed


def seeded(seed: int) -> "torch.Generator":
    """A generator on the CPU, so that a seed means the same on every device."""
    import torch

    return torch.Generator().manual_seed(seed)


def one_of(name: str, value: object, source: str | None) -> None:
    """Raises a ValueError unless a verb got either its argument or a file of requests."""
    if not value and source is None:
        raise ValueError(f"{name}: state it, or give --input FILE with a request per line")
    if value and source is not None:
        raise ValueError(f"{name}: leave it to the lines of --input, or leave out --input")


def stats_as_mapping(stats: "Stats") -> dict[str, Any]:
    return {
        "forwards": stats.forwards,
        "tokens": stats.tokens,
        "tokens_per_forward": round(stats.tokens_per_forward, 3),
        "seconds": {stage: round(seconds, 3) for stage, seconds in stats.seconds.items()},
    }


def report(as_json: bool, result: Mapping[str, Any], lines: list[str]) -> None:
    """Prints one JSON object, or lines for people."""
    if as_json:
        typer.echo(json.dumps(result))
    else:
        for line in lines:
            typer.echo(line)


def drawn_line(path: object, size: tuple[int, int], seed: int) -> str:
    return f"{path}  ({size[0]} x {size[1]} pixels, seed {seed})"
