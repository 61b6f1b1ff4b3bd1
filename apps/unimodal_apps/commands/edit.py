"""`unimodal edit`: pictures changed by an instruction."""

from typing import Annotated

import typer

from unimodal_apps.options import Batch, EditSettings, NumImages, PictureOutput, Run, grouped


@grouped
def edit(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="The picture, or several to take from; - reads the standard input."),
    ] = None,
    instruction: Annotated[
        str | None, typer.Option("--instruction", "-i", help="What to change; - reads the standard input.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option("--mask", "-m", help="A picture that is white where the first one may change; all else stays."),
    ] = None,
    num_images: NumImages = 1,
    output: PictureOutput = None,
    *,
    settings: EditSettings,
    run: Run,
    batch: Batch,
) -> None:
    """Change a picture by an instruction, or make one from several.

    \b
    Examples:
      unimodal edit car.png --instruction "make the car blue" -o blue.png
      unimodal edit cat.png meadow.png -i "put the cat into the meadow"
      unimodal edit cat.png -i "add a hat" --mask head.png
      unimodal edit --input edits.jsonl --output edited
      unimodal generate "a cat" -o - | unimodal edit - -i "add a hat" -o hat.png
    """
    from unimodal_apps.drawing import draw
    from unimodal_apps.session import one_of

    one_of("picture", pictures, batch.input)
    one_of("--instruction", instruction is not None, batch.input)
    if instruction is None:
        one_of("--mask", mask is None, None)
        from unimodal_apps.batches import run_batch

        return run_batch("edit", batch, settings, run, output, num_images=num_images)
    return draw("edit", "instruction", instruction, pictures or [], settings, run, output, num_images, mask)
