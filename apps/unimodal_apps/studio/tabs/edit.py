"""Pictures changed by an instruction, or made from several."""

from typing import Any

import gradio as gr
from PIL import Image

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_uploads
from unimodal_apps.studio.parameters import DECODER, PICTURE_GUIDANCE, RESCALE, SAMPLING, TEXT_GUIDANCE, Parameters
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench


def build(studio: Studio) -> None:
    settings = studio.pipe.settings
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_classes="uni-inputs"):
            pictures = gr.Gallery(
                label="Picture, or several to take from",
                type="filepath",
                interactive=True,
                columns=3,
                height=210,
                object_fit="cover",
                elem_id="edit-pictures",
            )
            instruction = gr.Textbox(label="Instruction", placeholder="make the car blue", lines=2, max_lines=6)
            controls = Controls("Edit")
            values = {**settings.edit.model_dump(), "decoder": settings.decoder.decoder}
            parameters = Parameters((TEXT_GUIDANCE, PICTURE_GUIDANCE, RESCALE, *SAMPLING, DECODER), values)
            edits = [
                [[str(bundled_picture(name)) for name in edit.pictures], edit.instruction] for edit in read_tour().edits
            ]
            gr.Examples(edits, [pictures, instruction], label="Examples")
        with gr.Column(scale=7, min_width=420, elem_classes="uni-work"):
            bench = Workbench(studio, "edit", "Say what to change", "The codes are drawn anew under your instruction.")
            slider = gr.ImageSlider(
                label="Before and after", max_height=420, interactive=False, visible=False, elem_id="edit-slider"
            )
            gallery = gr.Gallery(
                label="Pictures", columns=4, height=180, object_fit="contain", interactive=False, visible=False
            )
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        sources = read_uploads(values[pictures])
        if not sources:
            raise ValueError("There is no picture yet. Upload one, or choose an example.")
        text = needed(values[instruction], "The instruction")
        stated = parameters.stated([values[component] for component in parameters.components])
        return requested(studio, Request(task="edit", text=text, seed=seed, sources=sources, arguments=stated))

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        assert work.request is not None
        after = outcome.value.images[0]
        before = work.request.sources[-1].load().convert("RGB").resize(after.size, Image.Resampling.LANCZOS)
        files = saved_pictures(studio, work, outcome.value.images)
        return {slider: gr.update(value=(before, after), visible=True), gallery: gr.update(value=files, visible=True)}

    inputs = [pictures, instruction, *parameters.components]
    bench.connect(controls, inputs, prepare, [slider, gallery], show, submit=[instruction])
