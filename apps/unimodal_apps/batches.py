"""Works through a JSONL file: lines that state the same settings go through the pipeline together, and a run that was
interrupted goes on where it stopped.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from unimodal import Pipeline
from unimodal_apps.batch_lines import DRAWN, WRITTEN, Line, read_requests
from unimodal_apps.batch_results import Results
from unimodal_apps.metadata import Maker, Record
from unimodal_apps.options import Batch, Run, Settings
from unimodal_apps.requests import Answer, perform
from unimodal_apps.saving import record_of, save_answer, save_drawings
from unimodal_apps.session import open_pipeline


def run_batch(
    task: str, batch: Batch, settings: Settings, run: Run, output: str | None, *, num_images: int = 1
) -> None:
    """Answers every line of a file.

    Args:
        output: the folder for `results.jsonl` and what is drawn; None prints the results, for tasks that draw nothing.

    Raises:
        ValueError: a line, a setting or the folder cannot be used. Lines and the settings of each are tried before
            the first result is made.
    """
    assert batch.input is not None
    if output is None and task not in WRITTEN:
        raise ValueError("--output: name the folder for the results of --input")
    lines = read_requests(batch.input, task, settings, run, num_images)
    results = None if output is None else Results(output)
    left = lines if results is None else results.left(lines)
    if left:
        with _bar(len(lines), len(lines) - len(left)) as bar:
            pipe = open_pipeline(run.model, run.device, run.dtype)
            for entry in _entries(pipe, Maker.of(pipe, run.model), left, batch, results):
                bar.update()
                bar.write(_told(entry, run.as_json or results is None), file=sys.stdout)
    if results is not None and not run.as_json:
        typer.echo(f"{results.path}  ({len(left)} new, {len(lines) - len(left)} there before)")


def _entries(
    pipe: Pipeline, maker: Maker, lines: Sequence[Line], batch: Batch, results: Results | None
) -> Iterator[dict[str, Any]]:
    groups = _alike(lines)
    for group in groups[1:]:
        _rehearse(pipe, group[0])
    for group in groups:
        size = 1 if group[0].request.task == "interleave" else batch.batch_size
        for start in range(0, len(group), size):
            chunk = group[start : start + size]
            try:
                answers, _ = perform(pipe, [line.request for line in chunk])
            except ValueError as error:
                raise ValueError(f"{_named(chunk)}: {error}") from error
            for line, answer in zip(chunk, answers, strict=True):
                entry = _entry(line, answer, maker, pipe, results)
                if results is not None:
                    results.add(entry)
                yield entry


def _alike(lines: Iterable[Line]) -> list[list[Line]]:
    """Lines that can go through the pipeline together."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        key = json.dumps([line.request.count, dict(line.request.arguments)], sort_keys=True)
        groups.setdefault(key, []).append(line)
    return list(groups.values())


class _Rehearsed(Exception):
    """All arguments were accepted."""


def _rehearse(pipe: Pipeline, line: Line) -> None:
    """Goes as far as the first step, to find settings that cannot be used before anything is made."""

    def stop(*_: object) -> None:
        raise _Rehearsed

    arguments = {**line.request.arguments, "callback_on_step_end": stop}
    try:
        with suppress(_Rehearsed):
            perform(pipe, [replace(line.request, arguments=arguments)])
    except ValueError as error:
        raise ValueError(f"{_named([line])}: {error}") from error


def _named(lines: Sequence[Line]) -> str:
    numbers = ", ".join(str(line.number) for line in lines)
    return f"line {numbers}" if len(lines) == 1 else f"one of the lines {numbers}"


def _entry(line: Line, answer: Answer, maker: Maker, pipe: Pipeline, results: Results | None) -> dict[str, Any]:
    """The result of a line, its files written; names of files are relative to the folder."""
    request = line.request
    if request.task in WRITTEN:
        files: list[str] = []
        made: dict[str, Any] = {"answer": answer.text} | ({} if answer.gaps is None else {"gaps": answer.gaps})
    else:
        assert results is not None
        made = _saved(line, answer, record_of(request, maker, pipe), results.folder)
        files = made["images"] + ([made["story"]] if "story" in made else [])
    asked: dict[str, Any] = {"id": line.id, "task": request.task, "text": request.text}
    if request.sources:
        asked["sources"] = [source.as_mapping() for source in request.sources]
    if request.mask is not None:
        asked["mask"] = request.mask.as_mapping()
    return {
        **asked,
        "seed": request.seed,
        **made,
        "arguments": dict(request.arguments),
        "model": maker.model,
        "model_sha256": maker.model_sha256,
        "files": files,
        "request": line.digest,
    }


def _saved(line: Line, answer: Answer, record: Record, folder: Path) -> dict[str, Any]:
    """Writes the pictures of a line, or its story."""
    if line.request.task in DRAWN:
        count = line.request.count
        names = [f"{line.id}.png"] if count == 1 else [f"{line.id}-{number}.png" for number in range(1, count + 1)]
        return save_drawings(answer, record, [folder / name for name in names]) | {"images": names}
    made = save_answer(answer, record, folder / line.id, shown_below=Path(line.id))
    return made | {"images": [segment["image"] for segment in made["segments"] if segment["type"] == "image"]}


def _told(entry: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(entry, ensure_ascii=False)
    return f"{entry['id']}  {', '.join(entry['files'][:1]) or entry['answer']}  (seed {entry['seed']})"


def _bar(total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="line", disable=not sys.stderr.isatty())
