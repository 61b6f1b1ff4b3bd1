"""`unimodal serve`: a server that speaks OpenAI's protocol."""

from typing import Annotated

import typer

from unimodal_apps import options

LIMITS, ACCESS = "Limits", "Who may do what"


def serve(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    model: options.Model = "tiny",
    model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; as --model if left out.", rich_help_panel="Model")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="UNIMODAL_API_KEY", help="Clients must send it.", rich_help_panel=ACCESS),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web page that may call, several times or * for all.", rich_help_panel=ACCESS),
    ] = None,
    fetch_pictures: Annotated[
        bool, typer.Option(help="Follow http: and https: addresses of pictures.", rich_help_panel=ACCESS)
    ] = True,
    allow_private_addresses: Annotated[
        bool, typer.Option(help="Also into private networks and this machine.", rich_help_panel=ACCESS)
    ] = False,
    picture_folder: Annotated[
        str | None, typer.Option(help="Read file: addresses of pictures below it.", rich_help_panel=ACCESS)
    ] = None,
    max_batch_size: Annotated[
        int, typer.Option(min=1, help="Samples that are made together.", rich_help_panel=LIMITS)
    ] = 8,
    queue_length: Annotated[int, typer.Option(min=1, help="Requests that may wait.", rich_help_panel=LIMITS)] = 128,
    request_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds from a request to its answer.", rich_help_panel=LIMITS)
    ] = 300,
    shutdown_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to finish what runs when stopped.", rich_help_panel=LIMITS)
    ] = 60,
    max_body_mb: Annotated[float, typer.Option(min=0.01, help="Size of a request.", rich_help_panel=LIMITS)] = 64,
    max_images: Annotated[
        int, typer.Option(min=1, help="Pictures that a request may ask for.", rich_help_panel=LIMITS)
    ] = 8,
    max_drawn_pixels: Annotated[
        int, typer.Option(min=1, help="Pixels of a picture that a request may ask for.", rich_help_panel=LIMITS)
    ] = 2_200_000,
) -> None:
    """Serve chat, drawing and editing in OpenAI's protocol.

    \b
    Examples:
      unimodal serve
      unimodal serve --model inclusionAI/LLaDA2.0-Uni --device cuda --host 0.0.0.0 --api-key SECRET

    Clients set their base address to http://HOST:PORT/v1; /docs describes every endpoint, /metrics counts.
    """
    from pathlib import Path

    from unimodal_apps.server.options import MEBI, ServerOptions
    from unimodal_apps.server.run import serve as run
    from unimodal_apps.session import open_pipeline

    if picture_folder is not None and not Path(picture_folder).is_dir():
        raise ValueError(f"--picture-folder: there is no folder {picture_folder!r}")
    decided = ServerOptions(
        model=model_name or model,
        api_key=api_key or None,
        allowed_origins=tuple(allow_origin or ()),
        fetch_pictures=fetch_pictures,
        allow_private_addresses=allow_private_addresses,
        picture_folder=None if picture_folder is None else Path(picture_folder),
        max_batch_size=max_batch_size,
        queue_length=queue_length,
        request_timeout=request_timeout,
        shutdown_timeout=shutdown_timeout,
        max_body=int(max_body_mb * MEBI),
        max_images=max_images,
        max_drawn_pixels=max_drawn_pixels,
    )
    pipe = open_pipeline(model, device, dtype)
    pipe.set_progress_bar_config(disable=True)
    run(pipe, decided, host, port)
