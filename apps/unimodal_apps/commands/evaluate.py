"""`unimodal eval`: the checkpoint's scores on held-out scenes of the picture-book world."""

import sys
from typing import Annotated, Any

import typer

from unimodal_apps import options
from unimodal_apps.session import open_pipeline


def evaluate(
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Held-out samples per task.")] = 300,
    level: Annotated[str, typer.Option(help="Level of the world: standard or full.")] = "standard",
    task: Annotated[
        list[str] | None, typer.Option("--task", help="understand, generate, edit or decode; all if left out.")
    ] = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the samples and the sampling.")] = 0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Where the scores go; printed if left out.")
    ] = None,
) -> None:
    """Score a checkpoint on scenes that training never saw.

    \b
    Examples:
      unimodal eval --samples 300 --json scores.json
      unimodal eval --model runs/tiny --task understand --task edit
    """
    import json

    from unimodal.evaluation import run
    from unimodal.output_files import check_writable, save_text

    path = None if json_file is None else check_writable(json_file)
    pipe = open_pipeline(model, device, dtype)
    tasks: dict[str, Any] = {"tasks": tuple(task)} if task else {}
    scores = run.evaluate(pipe, samples, seed, level=level, progress=sys.stderr.isatty(), **tasks)
    text = json.dumps({"model": model, **scores}, indent=2)
    if path is None:
        typer.echo(text)
    else:
        save_text(text, path)
        typer.echo(str(path))
