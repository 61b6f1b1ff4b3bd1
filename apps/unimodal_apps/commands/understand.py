"""`unimodal understand`: questions about pictures."""

from typing import Annotated

import typer

from unimodal_apps.options import PLACE, Batch, Run, TextSampling, grouped


@grouped
def understand(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="PICTURE...", help="One or several picture files; - reads the standard input."),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="What to ask; may be given several times; - reads the standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Also write the JSON object to this file; with --input the folder for results.jsonl.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    *,
    settings: TextSampling,
    run: Run,
    batch: Batch,
) -> None:
    """Answer questions about one or several pictures.

    \b
    Examples:
      unimodal understand photo.png --question "what color is the car?"
      unimodal understand a.png b.png -q "which one has a dog?" --json
      unimodal understand --input questions.jsonl > answers.jsonl
      unimodal generate "a cat" -o - | unimodal understand - -q "what is it?"
    """
    from unimodal_apps.session import one_of

    one_of("picture", pictures, batch.input)
    one_of("--question", question, batch.input)
    if batch.input is not None:
        from unimodal_apps.batches import run_batch

        return run_batch("understand", batch, settings, run, output)
    return _ask(pictures or [], question or [], output, settings, run)


def _ask(pictures: list[str], asked: list[str], output: str | None, settings: TextSampling, run: Run) -> None:
    import json

    from unimodal.arguments import read_texts
    from unimodal.output_files import check_writable, save_text
    from unimodal_apps.metadata import Maker
    from unimodal_apps.session import open_pipeline, pick_seed, report, seeded, stats_as_mapping
    from unimodal_apps.standard_streams import StandardInput

    entered = StandardInput()
    questions = read_texts("question", [entered.text("question", text) for text in asked])
    sources = [entered.source("picture", path) for path in pictures]
    path = None if output is None else check_writable(output)
    seed, stated = pick_seed(run.seed), settings.stated()
    pipe = open_pipeline(run.model, run.device, run.dtype)
    groups = [[source.load() for source in sources]] * len(questions)
    # Several questions share one generator, from which each one's own is seeded.
    answer = pipe.understand(groups, questions, generator=seeded(seed), **stated)
    result = Maker.of(pipe, run.model).model_dump() | {
        "task": "understand",
        "sources": [source.as_mapping() for source in sources],
        "seed": seed,
        "arguments": stated,
        "settings": {"understand": pipe.settings.understand.model_dump()},
        "answer": answer.text,
        "answers": [{"question": text, "answer": reply} for text, reply in zip(questions, answer.texts, strict=True)],
        "stats": stats_as_mapping(answer.stats),
    }
    if path is not None:
        save_text(json.dumps(result, indent=2), path)
    report(run.as_json, result, answer.texts)
