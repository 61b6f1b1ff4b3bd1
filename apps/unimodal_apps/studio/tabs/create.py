"""Pictures from words."""

from typing import Any

import gradio as gr

from unimodal.quickstart.tour import read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, sizes_on_offer
from unimodal_apps.studio.parameters import DECODER, GUIDANCE, RESCALE, SAMPLING, SPRINT, Parameters
from unimodal_apps.studio.pieces import input_column, offer_examples, result_gallery, work_column
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

MOST_PICTURES = 4


def build(studio: Studio) -> None:
    settings, sizes = studio.pipe.settings, sizes_on_offer(studio.pipe)
    with gr.Row(equal_height=False):
        with input_column():
            prompt = gr.Textbox(
                label="Prompt",
                placeholder="a tree and a car in the snow",
                lines=3,
                max_lines=8,
                elem_id="create-prompt",
            )
            with gr.Row():
                size = gr.Dropdown(list(sizes), value=next(iter(sizes)), label="Shape", min_width=215)
                count = gr.Slider(
                    1, MOST_PICTURES, value=1, step=1, label="Pictures", min_width=130, elem_id="create-count"
                )
            thinking = gr.Checkbox(
                value=False, label="Think first", info="The model writes a plan of the picture before it draws."
            )
            controls = Controls("create", "Draw")
            more = {"decoder": settings.decoder.decoder}
            parameters = Parameters((GUIDANCE, RESCALE, *SAMPLING, SPRINT, DECODER), settings.generate, more)
            drawings = [[entry.prompt, entry.thinking] for entry in read_tour().drawings]
            offer_examples(drawings[:4] + drawings[-1:], [prompt, thinking], [0])
        with work_column():
            bench = Workbench(
                studio, "create", "Describe a picture", "First its codes are filled in, then codes become pixels."
            )
            thoughts = gr.Textbox(label="Thoughts", visible=False, lines=2, interactive=False)
            gallery = result_gallery("Pictures", "create-gallery")
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        height, width = sizes[values[size]]
        stated = parameters.stated(values)
        if (height, width) != (settings.generate.height, settings.generate.width):
            stated |= {"height": height, "width": width}
        if values[thinking]:
            stated["thinking"] = True
        text = needed(values[prompt], "The prompt")
        return requested(
            studio, Request(task="generate", text=text, seed=seed, count=int(values[count]), arguments=stated)
        )

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        told = "\n\n".join(outcome.value.thinking or [])
        files = saved_pictures(studio, work, outcome.value.images)
        return {
            thoughts: gr.update(value=told, visible=bool(told)),
            gallery: gr.update(value=files, visible=True),
        }

    inputs = [prompt, size, count, thinking, *parameters.components]
    bench.connect(controls, inputs, prepare, [thoughts, gallery], show, submit=[prompt])
