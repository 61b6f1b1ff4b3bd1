"""`unimodal understand`: questions about pictures."""

from typing import Annotated

import typer

from unimodal_apps import options
from unimodal_apps.session import facts, given, open_pipeline, pick_seed, report, seeded, stats_as_mapping


def understand(
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="One or several picture files.")],
    question: Annotated[list[str], typer.Option("--question", "-q", help="What to ask; may be given several times.")],
    model: options.Model = "tiny",
    device: options.Device = None,
    dtype: options.Dtype = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Also write the JSON object to this file.", rich_help_panel=options.PLACE),
    ] = None,
    num_inference_steps: options.Steps = None,
    gen_length: options.GenLength = None,
    block_length: options.BlockLength = None,
    threshold: options.Threshold = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
) -> None:
    """Answer questions about one or several pictures.

    Example: unimodal understand photo.png --question "what color is the car?"
    """
    import json

    from unimodal.arguments import read_texts
    from unimodal.output_files import check_writable, save_text
    from unimodal.picture_input import read_pictures

    questions = read_texts("question", question)
    images = read_pictures(pictures, "picture")
    path = None if output is None else check_writable(output)
    stated = given(
        num_inference_steps=num_inference_steps,
        gen_length=gen_length,
        block_length=block_length,
        threshold=threshold,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    pipe = open_pipeline(model, device, dtype)
    chosen = pick_seed(seed)
    answer = pipe.understand([images] * len(questions), questions, generator=seeded(chosen), **stated)
    settings = {**pipe.settings.understand.model_dump(), **stated}
    result = facts("understand", model, chosen, settings, images=pictures) | {
        "answer": answer.text,
        "answers": [{"question": text, "answer": reply} for text, reply in zip(questions, answer.texts, strict=True)],
        "stats": stats_as_mapping(answer.stats),
    }
    if path is not None:
        save_text(json.dumps(result, indent=2), path)
    report(as_json, result, answer.texts)
