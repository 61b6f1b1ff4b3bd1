"""A single call that draws: `generate` and `edit`."""

import sys
from collections.abc import Sequence

import typer

from unimodal.arguments import read_texts, repeated
from unimodal.output_files import file_name, picture_paths
from unimodal_apps.metadata import Maker, save_png
from unimodal_apps.options import Run, Settings
from unimodal_apps.requests import Request, perform
from unimodal_apps.saving import as_result, record_of, save_drawings
from unimodal_apps.session import drawn_line, open_pipeline, pick_seed, report, stats_as_mapping
from unimodal_apps.standard_streams import StandardInput, check_dash_output


def draw(
    task: str,
    text_name: str,
    text: str,
    pictures: Sequence[str],
    settings: Settings,
    run: Run,
    output: str | None,
    num_images: int,
    mask: str | None = None,
) -> None:
    """Draws `num_images` pictures and tells where they are.

    Args:
        text_name: what messages call the text.
        pictures: files of the pictures that go in; here and for the text a dash is the standard input.
        mask: file of what may change of the first picture.
        output: see `picture_paths`; a dash is the standard output.

    Raises:
        ValueError: something that cannot be used; nothing is written then.
    """
    entered = StandardInput()
    [words] = read_texts(text_name, entered.text(text_name, text))
    repeated([words], num_images)
    sources = tuple(entered.source("picture", path) for path in pictures)
    area = None if mask is None else entered.source("mask", mask)
    seed = pick_seed(run.seed)
    to_stdout = check_dash_output(output, num_images, run.as_json)
    paths = [] if to_stdout else picture_paths(output, num_images, file_name(words, seed))
    request = Request(
        task=task, text=words, seed=seed, sources=sources, count=num_images, mask=area, arguments=settings.stated()
    )
    pipe = open_pipeline(run.model, run.device, run.dtype)
    [answer], stats = perform(pipe, [request])
    record = record_of(request, Maker.of(pipe, run.model), pipe)
    if to_stdout:
        save_png(answer.images[0], sys.stdout.buffer, record)
        sys.stdout.buffer.flush()
        typer.echo(drawn_line("-", answer.images[0].size, seed), err=True)
        return
    result = as_result(record) | save_drawings(answer, record, paths) | {"stats": stats_as_mapping(stats)}
    lines = [drawn_line(path, image.size, seed) for path, image in zip(paths, answer.images, strict=True)]
    report(run.as_json, result, [*(answer.thinking or []), *lines])
