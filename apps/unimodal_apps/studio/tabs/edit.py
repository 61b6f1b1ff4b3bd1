"""Pictures changed by an instruction, inside a painted mask if there is one, or made from several."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_canvas, read_uploads, some
from unimodal_apps.studio.parameters import (
    DECODER,
    PICTURE_GUIDANCE,
    RESCALE,
    SAMPLING,
    SPRINT,
    TEXT_GUIDANCE,
    Parameters,
)
from unimodal_apps.studio.pieces import (
    input_column,
    offer_examples,
    picture_uploads,
    result_gallery,
    work_column,
)
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

_PAINT, _BRUSH = "#cc5f2c", 32
_PARTS = """(canvas) => [canvas?.background
  ? [canvas.background, ...(canvas.layers ?? [])].map((image) => ({ image, caption: null })) : []]"""


def build(studio: Studio) -> None:
    settings = studio.pipe.settings
    with gr.Row(equal_height=False):
        with input_column():
            canvas = gr.ImageEditor(
                label="Paint what may change",
                type="filepath",
                sources=("upload", "clipboard"),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=_BRUSH, colors=[_PAINT], color_mode="fixed"),
                height=380,
                elem_id="edit-canvas",
                elem_classes="uni-canvas",
            )
            # An editor that is an input uploads all it holds whenever anything happens in the page. So it hands its
            # parts to a component that does not.
            parts = gr.Gallery(type="filepath", interactive=True, visible="hidden")
            instruction = gr.Textbox(
                label="Instruction", placeholder="make the car blue", lines=2, max_lines=6, elem_id="edit-instruction"
            )
            controls = Controls("edit", "Edit")
            with gr.Accordion("More pictures to take from", open=False):
                others = picture_uploads()
            fields = (TEXT_GUIDANCE, PICTURE_GUIDANCE, RESCALE, *SAMPLING, SPRINT, DECODER)
            parameters = Parameters(fields, settings.edit, {"decoder": settings.decoder.decoder})
            offer_examples(_examples(), [canvas, others, instruction], [0, 2])
        with work_column():
            bench = Workbench(
                studio, "edit", "Say what to change", "Codes outside a painted mask stay, all others are drawn anew."
            )
            slider = gr.ImageSlider(
                label="Before and after", max_height=420, interactive=False, visible=False, elem_id="edit-slider"
            )
            gallery = result_gallery("Result", "edit-gallery")
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        picture, mask = read_canvas(values[parts])
        sources = some((*picture, *read_uploads(values[others])))
        text = needed(values[instruction], "The instruction")
        stated = parameters.stated(values)
        return requested(
            studio, Request(task="edit", text=text, seed=seed, sources=sources, mask=mask, arguments=stated)
        )

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        assert work.request is not None
        after = outcome.value.images[0]
        before = _closest([source.load() for source in work.request.sources], after)
        files = saved_pictures(studio, work, outcome.value.images)
        return {slider: gr.update(value=(before, after), visible=True), gallery: gr.update(value=files, visible=True)}

    inputs = [parts, others, instruction, *parameters.components]
    bench.connect(
        controls,
        inputs,
        prepare,
        [slider, gallery],
        show,
        submit=[instruction],
        handed=(canvas, parts, _PARTS),
    )


def _examples() -> list[list[Any]]:
    examples = []
    for edit in read_tour().edits:
        first, *others = [str(bundled_picture(name)) for name in edit.pictures]
        examples.append([{"background": first, "layers": [], "composite": first}, others, edit.instruction])
    return examples


def _closest(pictures: list[Image.Image], result: Image.Image) -> Image.Image:
    """The picture that the result resembles most, in its size: with several the model decides which one it changes."""
    resized = [picture.convert("RGB").resize(result.size, Image.Resampling.LANCZOS) for picture in pictures]
    wanted = np.asarray(result, dtype=np.float32)
    return min(resized, key=lambda picture: float(np.abs(np.asarray(picture, dtype=np.float32) - wanted).mean()))
