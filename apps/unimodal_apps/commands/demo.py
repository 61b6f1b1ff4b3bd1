"""`unimodal demo`: the studio, a page in the browser."""

import time
from pathlib import Path
from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import open_pipeline


def demo(
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The first free one from 7860 on if left out.")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Also at a public address, through Gradio's relay.")] = False,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Forget what draws and reads pictures after every run.")
    ] = False,
    screenshots: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Use every tab in a browser, leave pictures of them there, and end."),
    ] = None,
) -> None:
    """Open the studio: every job in the browser, its diffusion step by step.

    Example: unimodal demo --port 7860
    """
    # Up to here only modules were imported, so the processor's time is the time that it took.
    before, began = time.process_time(), time.perf_counter()

    from unimodal_apps.studio.page import launch
    from unimodal_apps.studio.studio import Studio
    from unimodal_apps.studio.visitor import take_screenshots

    studio = Studio(open_pipeline(model, device, dtype), model, low_memory=low_memory)
    try:
        page, address = launch(studio, host=host, port=port, share=share, quiet=True)
        if screenshots is not None:
            for path in take_screenshots(address, screenshots):
                typer.echo(str(path))
            return
        seconds = before + time.perf_counter() - began
        typer.echo(f"{address}  (ready in {seconds:.1f} s, end with Ctrl-C)")
        page.block_thread()
    finally:
        studio.close()
