"""`unimodal bench`: what decoding costs here, against other ways of doing it, and against an earlier run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unimodal_apps import options
from unimodal_apps.session import open_pipeline

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
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these, any number: understand, generate, thinking, edit, interleave; text, policies, context, "
            "experts, guidance, sprint; picture, plain, decode, diffusers run on request only."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Presets and policies that the jobs run with, any number: fast, cosine.")
    ] = None,
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
    quality: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Measure scores against passes for every policy instead; FILE is JSON, and a plot goes beside it.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Held-out samples of each point of --quality.")] = 60,
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
    how: dict[str, Any] = {"device": device, "threads": threads, "seed": seed}
    if quality is not None:
        _draw_quality(quality, model or EMBEDDED, samples, dtype=dtype[0] if dtype else None, **how)
        return
    checkpoint = (None if random_weights else model) if model else EMBEDDED
    configuration = (model if random_weights else None) if model else CONFIGURATION
    how |= {"dtypes": tuple(dtype) if dtype else (None,), "repeats": repeats}
    _measure(task or (), policy or (), against, json_file, checkpoint=checkpoint, configuration=configuration, **how)


def _measure(
    task: Sequence[str], policy: Sequence[str], against: str | None, json_file: str | None, **how: Any
) -> None:
    import json

    from unimodal.benchmark.cases import choose
    from unimodal.benchmark.run import Settings, run
    from unimodal.benchmark.tables import terminal_lines
    from unimodal.output_files import check_writable, save_text

    if against is not None and against not in WAYS:
        raise ValueError(f"against: got {against!r}, allowed is {' or '.join(WAYS)}")
    cases = choose(task, against is not None, policy)
    path = None if json_file is None else check_writable(json_file)
    results = run(cases, Settings(**how), progress=sys.stderr.isatty())
    if path is not None:
        save_text(json.dumps(results, indent=2), path)
    typer.echo("\n".join(terminal_lines(results)))


def _draw_quality(file: str, model: str, samples: int, *, seed: int, threads: int | None, **how: Any) -> None:
    import json

    from unimodal.benchmark.quality import draw, measure_quality
    from unimodal.benchmark.run import with_threads
    from unimodal.output_files import check_writable, save_text

    path = check_writable(file)
    if path.suffix != ".json":
        raise ValueError(f"quality: got {file!r}, the file must end in .json")
    pipe = open_pipeline(model, **how)
    with with_threads(threads):
        found = measure_quality(pipe, samples, seed, progress=sys.stderr.isatty())
    save_text(json.dumps(found, indent=2), path)
    draw(found, path.with_suffix(".png"))
    typer.echo(f"{path}\n{path.with_suffix('.png')}")


def _read(name: str) -> dict[str, Any]:
    from unimodal_configs.json_files import read_json

    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}")
    results = read_json(path)
    if "cases" not in results or "machine" not in results:
        raise ValueError(f"{name!r} holds no results of this command")
    return results
