"""`unimodal interleave`: answers of text and pictures."""

from typing import Annotated

import typer

from unimodal_apps.options import PLACE, Batch, InterleaveSettings, Run, grouped


@grouped
def interleave(
    prompt: Annotated[str | None, typer.Argument(help="What to tell; - reads the standard input.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="A picture that the prompt speaks of; may be repeated; - is the standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for story.md and its pictures; with --input for a folder per line.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    *,
    settings: InterleaveSettings,
    run: Run,
    batch: Batch,
) -> None:
    """Answer with text and pictures in turn.

    \b
    Examples:
      unimodal interleave "tell a story about a red boat in two pictures."
      unimodal interleave "go on with it" --image boat.png -o story
      unimodal interleave --input stories.jsonl --output stories
    """
    from unimodal_apps.session import one_of

    one_of("prompt", prompt is not None, batch.input)
    if prompt is None:
        from unimodal_apps.batches import run_batch

        return run_batch("interleave", batch, settings, run, output)
    return _tell(prompt, image or [], output, settings, run)


def _tell(prompt: str, pictures: list[str], output: str | None, settings: InterleaveSettings, run: Run) -> None:
    from pathlib import Path

    from unimodal.arguments import read_texts
    from unimodal.output_files import STORY_NAME, check_writable, file_name
    from unimodal_apps.metadata import Maker
    from unimodal_apps.requests import Request, perform
    from unimodal_apps.saving import as_result, record_of, save_answer
    from unimodal_apps.session import open_pipeline, pick_seed, report, stats_as_mapping
    from unimodal_apps.standard_streams import DASH, StandardInput

    if output == DASH:
        raise ValueError("--output: got '-', a story goes to a folder")
    entered = StandardInput()
    [words] = read_texts("prompt", entered.text("prompt", prompt))
    sources = tuple(entered.source("image", path) for path in pictures)
    seed = pick_seed(run.seed)
    folder = Path(output or f"outputs/{file_name(words, seed)}").expanduser()
    check_writable(folder / STORY_NAME)
    request = Request(task="interleave", text=words, seed=seed, sources=sources, arguments=settings.stated())
    pipe = open_pipeline(run.model, run.device, run.dtype)
    [answer], stats = perform(pipe, [request])
    record = record_of(request, Maker.of(pipe, run.model), pipe)
    made = save_answer(answer, record, folder)
    result = as_result(record) | made | {"stats": stats_as_mapping(stats)}
    places = [segment[segment["type"]] for segment in made["segments"]]
    report(run.as_json, result, [*places, f"{made['story']}  (seed {seed}, ended by {answer.finish_reason})"])
