"""Walks through the tour with a pipeline; leaves the pictures, `results.json`, `overview.png` and `index.html`."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from unimodal.output_files import save_picture, save_text
from unimodal.pipeline import Pipeline
from unimodal.quickstart.overview import draw_overview
from unimodal.quickstart.page import render_page
from unimodal.quickstart.tour import Tour, bundled_picture, read_tour
from unimodal_configs.atomic import replacing

PAGE_NAME, OVERVIEW_NAME, RESULTS_NAME = "index.html", "overview.png", "results.json"

Say = Callable[[str], object]
Found = dict[str, Any]


def run(pipe: Pipeline, folder: str | Path, *, model: str, seed: int = 0, say: Say = print) -> Found:
    """Answers, draws, edits and tells, all of it with one seed, and writes the page that shows it.

    Every picture is drawn from a generator of its own with this seed, so `unimodal generate PROMPT --seed SEED`
    draws the very same.

    Args:
        folder: for the files; those of an earlier tour are replaced, the page last.
        model: what the page calls the model.
        say: is handed every line for the terminal.

    Returns:
        What `results.json` holds; names of files are relative to the folder.
    """
    started, folder, tour = time.perf_counter(), Path(folder), read_tour()
    for name in tour.pictures:
        with replacing(folder / f"{name}.png") as path:
            shutil.copyfile(bundled_picture(name), path)
    facts = {"model": model, "seed": seed}
    found: Found = {**facts, "questions": _ask(pipe, tour, seed, say)}
    found["drawings"] = _draw(pipe, tour, seed, folder, facts, say)
    found["edits"] = _edit(pipe, tour, seed, folder, facts, say)
    found["story"] = _tell(pipe, tour, seed, folder, facts, say)
    found["seconds"] = round(time.perf_counter() - started, 1)
    draw_overview(found, folder, folder / OVERVIEW_NAME)
    save_text(json.dumps(found, indent=2), folder / RESULTS_NAME)
    save_text(render_page(found), folder / PAGE_NAME)
    say(f"\n{folder / PAGE_NAME}  ({found['seconds']:.0f} s)")
    return found


def _ask(pipe: Pipeline, tour: Tour, seed: int, say: Say) -> list[Found]:
    asked = tour.questions
    answers = pipe.understand(
        [[bundled_picture(entry.picture)] for entry in asked],
        [entry.question for entry in asked],
        generator=_generators(len(asked), seed),
    )
    found, shown = [], ""
    for entry, answer in zip(asked, answers.texts, strict=True):
        if entry.picture != shown:
            shown = entry.picture
            say(f"\nUnderstand {shown}.png")
        right = answer.strip().lower() == entry.answer
        say(f"  {entry.question}  {answer}" + ("" if right else f"  [expected: {entry.answer}]"))
        found.append(
            {
                "picture": f"{entry.picture}.png",
                "question": entry.question,
                "answer": answer,
                "expected": entry.answer,
                "right": right,
            }
        )
    return found


def _draw(pipe: Pipeline, tour: Tour, seed: int, folder: Path, facts: Found, say: Say) -> list[Found]:
    say("\nDraw")
    found: list[Found] = []
    for thinking in (False, True):
        prompts = [drawing.prompt for drawing in tour.drawings if drawing.thinking == thinking]
        if not prompts:
            continue
        drawn = pipe.generate(prompts, thinking=thinking, generator=_generators(len(prompts), seed))
        thoughts = drawn.thinking or [None] * len(prompts)
        for prompt, image, thought in zip(prompts, drawn.images, thoughts, strict=True):
            name = f"drawing-{len(found) + 1}.png"
            save_picture(image, folder / name, {"prompt": prompt, **facts})
            say(f"  {prompt}  {name}" + (f"\n    thinking: {thought}" if thought else ""))
            found.append({"prompt": prompt, "thinking": thought, "image": name})
    return found


def _edit(pipe: Pipeline, tour: Tour, seed: int, folder: Path, facts: Found, say: Say) -> list[Found]:
    say("\nEdit")
    groups = [[bundled_picture(name) for name in edit.pictures] for edit in tour.edits]
    instructions = [edit.instruction for edit in tour.edits]
    edited = pipe.edit(groups, instructions, generator=_generators(len(groups), seed))
    found: list[Found] = []
    for edit, image in zip(tour.edits, edited.images, strict=True):
        name = f"edit-{len(found) + 1}.png"
        save_picture(image, folder / name, {"instruction": edit.instruction, **facts})
        say(f"  {edit.instruction}  {name}")
        sources = [f"{source}.png" for source in edit.pictures]
        found.append({"instruction": edit.instruction, "sources": sources, "image": name})
    return found


def _tell(pipe: Pipeline, tour: Tour, seed: int, folder: Path, facts: Found, say: Say) -> Found:
    say(f"\nTell\n  {tour.story}")
    answer = pipe.interleave(tour.story, generator=_generators(1, seed)[0])
    segments: list[Found] = []
    for segment in answer.segments:
        if isinstance(segment, str):
            segments.append({"text": segment})
            say(f"    {segment}")
        else:
            name = f"story-{sum('image' in other for other in segments) + 1}.png"
            save_picture(segment, folder / name, {"prompt": tour.story, **facts})
            segments.append({"image": name})
            say(f"    {name}")
    return {"prompt": tour.story, "segments": segments, "finish_reason": answer.finish_reason}


def _generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for _ in range(count)]
