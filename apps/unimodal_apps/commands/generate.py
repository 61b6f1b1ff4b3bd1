"""`unimodal generate`: pictures from a prompt."""

from typing import Annotated

import typer

from unimodal_apps.options import Batch, GenerateSettings, NumImages, PictureOutput, Run, grouped


@grouped
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw; - reads the standard input.")] = None,
    num_images: NumImages = 1,
    output: PictureOutput = None,
    *,
    settings: GenerateSettings,
    run: Run,
    batch: Batch,
) -> None:
    """Draw pictures from a prompt.

    \b
    Examples:
      unimodal generate "a red car in a meadow" --output car.png
      unimodal generate "two cats in the snow" --seed 7 --num-images 4
      unimodal generate "a boat at night" --thinking --width 512
      unimodal generate --input prompts.jsonl --output drawings
      echo "a blue house" | unimodal generate - -o - > house.png
    """
    from unimodal_apps.drawing import draw
    from unimodal_apps.session import one_of

    one_of("prompt", prompt, batch.input)
    if prompt is None:
        from unimodal_apps.batches import run_batch

        return run_batch("generate", batch, settings, run, output, num_images=num_images)
    return draw("generate", "prompt", prompt, [], settings, run, output, num_images)
