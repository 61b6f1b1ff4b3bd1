"""Work that is one of the requests which the command line and the server make too, with pictures that carry how they
were made.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from PIL import Image

from unimodal import Pipeline
from unimodal.output_files import file_name
from unimodal_apps.metadata import save_png
from unimodal_apps.requests import Request, perform
from unimodal_apps.saving import record_of
from unimodal_apps.studio.frames import Recorder
from unimodal_apps.studio.studio import Outcome, Studio, Work


def requested(studio: Studio, request: Request) -> Work:
    """The run that a request asks for; its value is an `Answer`."""

    def call(pipe: Pipeline, recorder: Recorder) -> Outcome:
        watched = replace(request, arguments={**request.arguments, "callback_on_step_end": recorder})
        [answer], stats = perform(pipe, [watched])
        return Outcome(value=answer, stats=stats)

    facts = {
        "task": request.task,
        "prompt": request.text,
        "model": studio.model,
        "seed": request.seed,
        "arguments": dict(request.arguments),
    }
    return Work(name=file_name(request.text, request.seed), facts=facts, call=call, request=request)


def saved_pictures(
    studio: Studio, work: Work, pictures: list[Image.Image], facts: Mapping[str, Any] | None = None
) -> list[str]:
    """The files of a run's pictures, which `unimodal reproduce` can make again.

    Args:
        facts: more fields of their record.
    """
    assert work.request is not None
    folder = studio.new_folder()
    record = record_of(work.request, studio.maker, studio.pipe).model_copy(update=dict(facts or {}))
    paths = []
    for index, picture in enumerate(pictures):
        number = f"-{index + 1}" if len(pictures) > 1 else ""
        path = folder / f"{work.name}{number}.png"
        save_png(picture, path, record.model_copy(update={"index": index}))
        paths.append(str(path))
    return paths
