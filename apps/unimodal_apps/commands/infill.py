"""`unimodal infill`: texts with gaps."""

from typing import Annotated

import typer

from unimodal_apps.options import PLACE, Batch, InfillSettings, Run, grouped


@grouped
def infill(
    text: Annotated[
        str | None,
        typer.Argument(help="Gaps are <gap>, or <gap:5> for five tokens; - reads the standard input."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="A picture that the prompt is about; may be repeated; - is the standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="With --input the folder for results.jsonl.", rich_help_panel=PLACE),
    ] = None,
    *,
    settings: InfillSettings,
    run: Run,
    batch: Batch,
) -> None:
    """Fill the gaps of a text, and leave the rest as it is.

    \b
    Examples:
      unimodal infill "a <gap> car to the left of a <gap> house"
      unimodal infill "It is <gap:1>." --image car.png -p "what color is it?"
      unimodal infill --input texts.jsonl > filled.jsonl
    """
    from unimodal_apps.session import one_of

    one_of("text", text is not None, batch.input)
    if text is None:
        from unimodal_apps.batches import run_batch

        return run_batch("infill", batch, settings, run, output)
    if output is not None:
        raise ValueError("--output: it is for --input, a single text goes to the standard output")
    return _fill(text, image or [], settings, run)


def _fill(text: str, pictures: list[str], settings: InfillSettings, run: Run) -> None:
    from unimodal.infill import read_gapped_texts
    from unimodal_apps.metadata import Maker
    from unimodal_apps.requests import Request, perform
    from unimodal_apps.session import open_pipeline, pick_seed, report, stats_as_mapping
    from unimodal_apps.standard_streams import StandardInput

    entered = StandardInput()
    words = entered.text("text", text)
    read_gapped_texts(words)
    sources = tuple(entered.source("image", path) for path in pictures)
    stated = settings.stated()
    request = Request(task="infill", text=words, seed=pick_seed(run.seed), sources=sources, arguments=stated)
    pipe = open_pipeline(run.model, run.device, run.dtype)
    [answer], stats = perform(pipe, [request])
    result = Maker.of(pipe, run.model).model_dump() | {
        "task": "infill",
        "text": words,
        "sources": [source.as_mapping() for source in sources],
        "seed": request.seed,
        "arguments": stated,
        "answer": answer.text,
        "gaps": answer.gaps,
        "stats": stats_as_mapping(stats),
    }
    report(run.as_json, result, [answer.text])
