"""`unimodal reproduce`: makes the picture of a file again, from what the file says."""

import sys
from typing import Annotated, Any

import typer

from unimodal_apps import options

SAME, ANOTHER = 0, 1


def reproduce(
    file: Annotated[str, typer.Argument(help="A picture that this program made.")],
    show: Annotated[bool, typer.Option("--show", help="Only print how it was made, as JSON.")] = False,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="A picture that went in, where it is no longer in its place; in order."),
    ] = None,
    mask: Annotated[str | None, typer.Option(help="The mask, where it is no longer in its place.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Another place of the same model.", rich_help_panel=options.PLACE)
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    as_json: options.AsJson = False,
    output: options.PictureOutput = None,
) -> None:
    """Make a picture again from what its file says, and compare the two.

    A picture carries its prompt, model, seed, settings, versions and the pictures that went in. The same pixels come
    out where model, versions and machine are the same; where they do not, exit code 1 and a line for each thing that
    is not as it was.

    \b
    Examples:
      unimodal reproduce car.png
      unimodal reproduce car.png --show
      unimodal reproduce blue.png --image pictures/car.png -o again.png
    """
    from pathlib import Path

    from unimodal.output_files import picture_paths, save_picture
    from unimodal.picture_input import read_picture
    from unimodal_apps.metadata import Maker, Record, read_record, save_png
    from unimodal_apps.reproduction import LOSSLESS, compare, find_mask, find_sources, redraw
    from unimodal_apps.session import drawn_line, open_pipeline, report
    from unimodal_apps.standard_streams import check_dash_output

    record = read_record(file)
    if show:
        typer.echo(record.model_dump_json(indent=2, exclude_defaults=True))
        return
    path = Path(file)
    sources = find_sources(record, path.parent, image or [])
    area = find_mask(record, path.parent, mask)
    to_stdout = check_dash_output(output, 1, as_json)
    place = None if to_stdout else picture_paths(output, 1, f"{path.stem}-again")[0]
    if place is not None and place.exists() and place.samefile(path):
        raise ValueError(f"--output: {str(place)!r} is the picture itself, choose another name")
    pipe = open_pipeline(model or record.model, device, dtype or record.dtype)
    now = Maker.of(pipe, model or record.model)
    drawn = redraw(pipe, record, sources, area)
    again = Record(**{**record.model_dump(), **now.model_dump()})
    is_lossless = path.suffix.lower() in LOSSLESS
    difference = compare(read_picture(path), drawn) if is_lossless else None
    notes = record.differences(now)
    if place is None:
        save_png(drawn, sys.stdout.buffer, again)
        sys.stdout.buffer.flush()
    else:
        save_picture(drawn, place, again.facts())
    verdict = difference or ("the same picture" if is_lossless else f"{path.suffix} keeps no exact pixels to compare")
    result: dict[str, Any] = {
        "file": file,
        "image": None if place is None else str(place),
        "same": difference is None if is_lossless else None,
        "difference": difference,
        "changes": notes,
    }
    lines = [f"{drawn_line(place or '-', drawn.size, record.seed)}: {verdict}", *notes]
    if to_stdout:
        typer.echo("\n".join(lines), err=True)
    else:
        report(as_json, result, lines)
    raise typer.Exit(SAME if difference is None else ANOTHER)
