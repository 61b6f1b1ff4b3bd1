"""Questions about pictures."""

from typing import Any

import gradio as gr

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_uploads, some
from unimodal_apps.studio.markup import render_answer
from unimodal_apps.studio.parameters import LENGTH, SAMPLING, SPRINT, Parameters
from unimodal_apps.studio.pieces import input_column, offer_examples, picture_uploads, work_column
from unimodal_apps.studio.requested import requested
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench


def build(studio: Studio) -> None:
    with gr.Row(equal_height=False):
        with input_column():
            pictures = picture_uploads(240, "understand-pictures")
            question = gr.Textbox(
                label="Question", placeholder="what color is the car?", lines=2, max_lines=6, submit_btn=False
            )
            controls = Controls("understand", "Ask")
            parameters = Parameters((LENGTH, *SAMPLING, SPRINT), studio.pipe.settings.understand)
            asked = [([str(bundled_picture(entry.picture))], entry.question) for entry in read_tour().questions]
            offer_examples(asked[::3], [pictures, question])
        with work_column():
            bench = Workbench(
                studio, "understand", "Ask about a picture", "The answer appears word by word, the surest words first."
            )
            answer = gr.HTML(elem_classes="uni-result", elem_id="understand-answer")
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        sources = some(read_uploads(values[pictures]))
        text = needed(values[question], "The question")
        stated = parameters.stated(values)
        return requested(studio, Request(task="understand", text=text, seed=seed, sources=sources, arguments=stated))

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        return {answer: gr.update(value=render_answer(outcome.value.text), visible=True)}

    inputs = [pictures, question, *parameters.components]
    bench.connect(controls, inputs, prepare, [answer], show, submit=[question])
