"""`unimodal quickstart`: the four jobs on pictures that come with the package."""

from pathlib import Path
from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import open_pipeline


def quickstart(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures and index.html.")] = Path(
        "outputs/quickstart"
    ),
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Understand, draw, edit and tell a story on bundled pictures, and show it all on one page.

    \b
    Examples:
      unimodal quickstart
      unimodal quickstart --seed 3 --output tour
    """
    import json

    from unimodal.output_files import check_writable
    from unimodal.quickstart.run import PAGE_NAME, run

    check_writable(output / PAGE_NAME)
    pipe = open_pipeline(model, device, dtype)
    result = run(pipe, output, model=model, seed=seed, say=_silent if as_json else typer.echo)
    if as_json:
        typer.echo(json.dumps(result))


def _silent(line: str) -> None:
    """Where the result is printed as a whole, nothing else is."""
