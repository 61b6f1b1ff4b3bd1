"""`unimodal bench`: what decoding costs here, against other ways of doing it, and against an earlier run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from unimodal_apps import options

EMBEDDED, CONFIGURATION = "tiny", "bench_50m"
WAYS = ("diffusers",)


def bench(
    model: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint; with --random-weights a packaged configuration. If left out: tiny for the jobs, "
            "bench_50m with random weights for the rest.",
            rich_help_panel=options.PLACE,
        ),
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Build the model's geometry without a checkpoint.")
    ] = False,
    task: Annotated[list[str] | None, typer.Option(help="Measure only these; any number of times.")] = None,
    against: Annotated[str | None, typer.Option(help="diffusers: the same text written by its LLaDA2Pipeline.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each case; the median counts.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor.")] = None,
    device: options.Device = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, bfloat16, float16 or float64; any number of them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights, prompts and noise.")] = 0,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Where the results go.")] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A.json B.json", help="Set two earlier results side by side.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="FILE", help="Print an earlier result as the Markdown table of a README.")
    ] = None,
) -> None:
    """Measure time, memory and passes of each task; or show earlier results.

    Example: unimodal bench --against diffusers --threads 2 --json bench.json
    """
    if table is not None:
        from unimodal.benchmark.tables import markdown

        typer.echo(markdown(_read(table)))
        return
    if compare is not None:
        from unimodal.benchmark.tables import difference_lines

        typer.echo("\n".join(difference_lines(_read(compare[0]), _read(compare[1]))))
        return
    _measure(
        model,
        random_weights,
        task,
        against,
        json_file,
        device=device,
        dtypes=dtype,
        threads=threads,
        repeats=repeats,
        seed=seed,
    )


def _measure(
    model: str | None,
    random_weights: bool,
    task: list[str] | None,
    against: str | None,
    json_file: str | None,
    *,
    dtypes: list[str] | None,
    **how: Any,
) -> None:
    import json

    from unimodal.benchmark.cases import choose
    from unimodal.benchmark.run import Settings, run
    from unimodal.benchmark.tables import terminal_lines
    from unimodal.output_files import check_writable, save_text

    if against is not None and against not in WAYS:
        raise ValueError(f"against: got {against!r}, allowed is {' or '.join(WAYS)}")
    cases = choose(tuple(task) if task else None, against is not None)
    path = None if json_file is None else check_writable(json_file)
    checkpoint = (None if random_weights else model) if model else EMBEDDED
    configuration = (model if random_weights else None) if model else CONFIGURATION
    settings = Settings(
        checkpoint=checkpoint, configuration=configuration, dtypes=tuple(dtypes) if dtypes else (None,), **how
    )
    results = run(cases, settings, progress=sys.stderr.isatty())
    if path is not None:
        save_text(json.dumps(results, indent=2), path)
    typer.echo("\n".join(terminal_lines(results)))


def _read(name: str) -> dict[str, Any]:
    from unimodal_configs.json_files import read_json

    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}")
    results = read_json(path)
    if "cases" not in results or "machine" not in results:
        raise ValueError(f"{name!r} holds no results of this command")
    return results
