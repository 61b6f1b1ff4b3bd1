"""Pictures changed by an instruction, inside a painted mask if there is one, or made from several."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_canvas, read_uploads
from unimodal_apps.studio.parameters import (
    DECODER,
    PICTURE_GUIDANCE,
    RESCALE,
    SAMPLING,
    TEXT_GUIDANCE,
    Parameters,
)
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

_PAINT, _BRUSH = "#cc5f2c", 32


def build(studio: Studio) -> None:
    settings = studio.pipe.settings
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_classes="uni-inputs"):
            canvas = gr.ImageEditor(
                label="Picture; paint what may change",
                type="filepath",
                sources=("upload", "clipboard"),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=_BRUSH, colors=[_PAINT], color_mode="fixed"),
                height=380,
                elem_id="edit-canvas",
                elem_classes="uni-canvas",
            )
            instruction = gr.Textbox(
                label="Instruction", placeholder="make the car blue", lines=2, max_lines=6, elem_id="edit-instruction"
            )
            controls = Controls("edit", "Edit")
            with gr.Accordion("More pictures to take from", open=False):
                others = gr.Gallery(
                    label="Pictures",
                    type="filepath",
                    interactive=True,
                    columns=3,
                    fit_columns=False,
                    height=180,
                    object_fit="contain",
                )
            fields = (TEXT_GUIDANCE, PICTURE_GUIDANCE, RESCALE, *SAMPLING, DECODER)
            parameters = Parameters(fields, settings.edit, {"decoder": settings.decoder.decoder})
            gr.Examples(_examples(), [canvas, others, instruction], label="Examples", visible_columns=[0, 2])
        with gr.Column(scale=7, min_width=420, elem_classes="uni-work"):
            bench = Workbench(
                studio, "edit", "Say what to change", "Codes outside a painted mask stay, all others are drawn anew."
            )
            slider = gr.ImageSlider(
                label="Before and after", max_height=420, interactive=False, visible=False, elem_id="edit-slider"
            )
            gallery = gr.Gallery(
                label="Result",
                columns=3,
                fit_columns=False,
                height="auto",
                object_fit="contain",
                interactive=False,
                visible=False,
            )
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        picture, mask = read_canvas(values[canvas])
        sources = (*picture, *read_uploads(values[others]))
        if not sources:
            raise ValueError("There is no picture yet. Upload one, or choose an example.")
        text = needed(values[instruction], "The instruction")
        stated = parameters.stated([values[component] for component in parameters.components])
        return requested(
            studio, Request(task="edit", text=text, seed=seed, sources=sources, mask=mask, arguments=stated)
        )

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        assert work.request is not None
        after = outcome.value.images[0]
        before = _closest([source.load() for source in work.request.sources], after)
        files = saved_pictures(studio, work, outcome.value.images)
        return {slider: gr.update(value=(before, after), visible=True), gallery: gr.update(value=files, visible=True)}

    inputs = [canvas, others, instruction, *parameters.components]
    bench.connect(controls, inputs, prepare, [slider, gallery], show, submit=[instruction])


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
