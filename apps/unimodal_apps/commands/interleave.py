"""`unimodal interleave`: answers of text and pictures."""

from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import facts, given, open_pipeline, pick_seed, report, seeded, stats_as_mapping


def interleave(
    prompt: Annotated[str, typer.Argument(help="What to tell.")],
    image: Annotated[
        list[str] | None, typer.Option("--image", help="A picture that the prompt speaks of; may be repeated.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(help="Pictures in the answer at most.")] = None,
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder for story.md and its pictures.", rich_help_panel=options.PLACE),
    ] = None,
    num_inference_steps: options.Steps = None,
    image_num_inference_steps: Annotated[
        int | None, typer.Option(help="Per block of a picture.", rich_help_panel=options.SAMPLING)
    ] = None,
    gen_length: options.GenLength = None,
    block_length: options.BlockLength = None,
    threshold: options.Threshold = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    guidance_scale: options.GuidanceScale = None,
    text_guidance_scale: options.TextGuidanceScale = None,
    image_guidance_scale: options.ImageGuidanceScale = None,
    guidance_rescale: options.GuidanceRescale = None,
    decoder: options.Decoder = None,
    decoder_steps: options.DecoderSteps = None,
) -> None:
    """Answer with text and pictures in turn.

    Example: unimodal interleave "tell a story about a red boat in two pictures." --output story
    """
    from pathlib import Path

    from unimodal.arguments import read_texts
    from unimodal.output_files import STORY_NAME, check_writable, file_name, save_story
    from unimodal.picture_input import read_pictures

    read_texts("prompt", prompt)
    sources = list(image or [])
    images = read_pictures(sources, "image")
    chosen = pick_seed(seed)
    folder = Path(output or f"outputs/{file_name(prompt, chosen)}").expanduser()
    check_writable(folder / STORY_NAME)
    stated = given(
        max_images=max_images,
        num_inference_steps=num_inference_steps,
        image_num_inference_steps=image_num_inference_steps,
        gen_length=gen_length,
        block_length=block_length,
        threshold=threshold,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        text_guidance_scale=text_guidance_scale,
        image_guidance_scale=image_guidance_scale,
        guidance_rescale=guidance_rescale,
        decoder=decoder,
        decoder_steps=decoder_steps,
    )
    pipe = open_pipeline(model, device, dtype)
    answer = pipe.interleave(prompt, images, generator=seeded(chosen), **stated)
    settings = {**pipe.settings.interleave.model_dump(), "decoder": pipe.settings.decoder.decoder, **stated}
    made = facts("interleave", model, chosen, settings, prompt=prompt, sources=sources)
    shown = save_story(answer.segments, folder, prompt, made)
    kinds = ["text" if isinstance(segment, str) else "image" for segment in answer.segments]
    places = [text if kind == "text" else str(folder / text) for kind, text in zip(kinds, shown, strict=True)]
    result = made | {
        "segments": [{"type": kind, kind: place} for kind, place in zip(kinds, places, strict=True)],
        "story": str(folder / STORY_NAME),
        "finish_reason": answer.finish_reason,
        "stats": stats_as_mapping(answer.stats),
    }
    report(as_json, result, [*places, f"{folder / STORY_NAME}  (seed {chosen}, ended by {answer.finish_reason})"])
