"""Questions about pictures."""

from typing import Any

import gradio as gr

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_uploads
from unimodal_apps.studio.markup import render_answer
from unimodal_apps.studio.parameters import LENGTH, SAMPLING, Parameters
from unimodal_apps.studio.requested import requested
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench


def build(studio: Studio) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=320, elem_classes="uni-inputs"):
            pictures = gr.Gallery(
                label="Pictures",
                type="filepath",
                interactive=True,
                columns=3,
                fit_columns=False,
                height=240,
                object_fit="contain",
                elem_id="understand-pictures",
            )
            question = gr.Textbox(
                label="Question", placeholder="what color is the car?", lines=2, max_lines=6, submit_btn=False
            )
            controls = Controls("understand", "Ask")
            parameters = Parameters((LENGTH, *SAMPLING), studio.pipe.settings.understand)
            asked = [([str(bundled_picture(entry.picture))], entry.question) for entry in read_tour().questions]
            gr.Examples([list(entry) for entry in asked[::3]], [pictures, question], label="Examples")
        with gr.Column(scale=7, min_width=420, elem_classes="uni-work"):
            bench = Workbench(
                studio, "understand", "Ask about a picture", "The answer appears word by word, the surest words first."
            )
            answer = gr.HTML(elem_classes="uni-result", elem_id="understand-answer")
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        sources = read_uploads(values[pictures])
        if not sources:
            raise ValueError("There is no picture yet. Upload one, or choose an example.")
        text = needed(values[question], "The question")
        stated = parameters.stated([values[component] for component in parameters.components])
        return requested(studio, Request(task="understand", text=text, seed=seed, sources=sources, arguments=stated))

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        return {answer: gr.update(value=render_answer(outcome.value.text), visible=True)}

    inputs = [pictures, question, *parameters.components]
    bench.connect(controls, inputs, prepare, [answer], show, submit=[question])
