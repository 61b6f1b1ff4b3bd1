"""`unimodal edit`: pictures changed by an instruction."""

from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import drawn_line, facts, given, open_pipeline, pick_seed, report, seeded, stats_as_mapping


def edit(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="The picture, or several to take from.")],
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="What to change.")],
    height: options.Height = None,
    width: options.Width = None,
    num_images: options.NumImages = 1,
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
    text_guidance_scale: options.TextGuidanceScale = None,
    image_guidance_scale: options.ImageGuidanceScale = None,
    guidance_rescale: options.GuidanceRescale = None,
    decoder: options.Decoder = None,
    decoder_steps: options.DecoderSteps = None,
) -> None:
    """Change a picture by an instruction, or make one from several.

    Example: unimodal edit car.png --instruction "make the car blue" --output blue.png
    """
    from unimodal.arguments import read_texts, repeated
    from unimodal.output_files import file_name, picture_paths, save_picture
    from unimodal.picture_input import read_pictures

    read_texts("instruction", instruction)
    repeated([instruction], num_images)
    images = read_pictures(pictures, "picture")
    chosen = pick_seed(seed)
    paths = picture_paths(output, num_images, file_name(instruction, chosen))
    stated = given(
        height=height,
        width=width,
        num_inference_steps=num_inference_steps,
        block_length=block_length,
        threshold=threshold,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        text_guidance_scale=text_guidance_scale,
        image_guidance_scale=image_guidance_scale,
        guidance_rescale=guidance_rescale,
        decoder=decoder,
        decoder_steps=decoder_steps,
    )
    pipe = open_pipeline(model, device, dtype)
    drawn = pipe.edit(images, instruction, num_images_per_prompt=num_images, generator=seeded(chosen), **stated)
    settings = {**pipe.settings.edit.model_dump(), "decoder": pipe.settings.decoder.decoder, **stated}
    made = facts("edit", model, chosen, settings, instruction=instruction, sources=pictures)
    for image, path in zip(drawn.images, paths, strict=True):
        save_picture(image, path, made)
    result = made | {"images": [str(path) for path in paths], "stats": stats_as_mapping(drawn.stats)}
    lines = [drawn_line(path, image.size, chosen) for path, image in zip(paths, drawn.images, strict=True)]
    report(as_json, result, lines)
