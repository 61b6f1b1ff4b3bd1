"""`unimodal generate`: pictures from a prompt."""

from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import drawn_line, facts, given, open_pipeline, pick_seed, report, seeded, stats_as_mapping


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    height: options.Height = None,
    width: options.Width = None,
    num_images: options.NumImages = 1,
    thinking: Annotated[bool, typer.Option("--thinking", help="The model first writes what it will draw.")] = False,
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
    output: options.PictureOutput = None,
    num_inference_steps: options.Steps = None,
    block_length: options.BlockLength = None,
    threshold: options.Threshold = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    guidance_scale: options.GuidanceScale = None,
    guidance_rescale: options.GuidanceRescale = None,
    thinking_gen_length: Annotated[
        int | None, typer.Option(help="Tokens of the thoughts at most.", rich_help_panel=options.SAMPLING)
    ] = None,
    decoder: options.Decoder = None,
    decoder_steps: options.DecoderSteps = None,
) -> None:
    """Draw pictures from a prompt.

    Example: unimodal generate "a red car in a meadow" --output car.png
    """
    from unimodal.arguments import read_texts, repeated
    from unimodal.output_files import file_name, picture_paths, save_picture

    read_texts("prompt", prompt)
    repeated([prompt], num_images)
    chosen = pick_seed(seed)
    paths = picture_paths(output, num_images, file_name(prompt, chosen))
    stated = given(
        height=height,
        width=width,
        num_inference_steps=num_inference_steps,
        block_length=block_length,
        threshold=threshold,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        guidance_rescale=guidance_rescale,
        thinking_gen_length=thinking_gen_length,
        decoder=decoder,
        decoder_steps=decoder_steps,
    )
    pipe = open_pipeline(model, device, dtype)
    drawn = pipe.generate(
        prompt, thinking=thinking, num_images_per_prompt=num_images, generator=seeded(chosen), **stated
    )
    settings = {**pipe.settings.generate.model_dump(), "decoder": pipe.settings.decoder.decoder, **stated}
    made = facts("generate", model, chosen, settings, prompt=prompt)
    for image, path in zip(drawn.images, paths, strict=True):
        save_picture(image, path, made)
    result = made | {
        "images": [str(path) for path in paths],
        "thinking": drawn.thinking,
        "stats": stats_as_mapping(drawn.stats),
    }
    lines = [drawn_line(path, image.size, chosen) for path, image in zip(paths, drawn.images, strict=True)]
    report(as_json, result, [*(drawn.thinking or []), *lines])
