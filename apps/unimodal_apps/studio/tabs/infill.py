"""Gaps in a text, filled while everything else stays."""

from typing import Any

import gradio as gr

from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_uploads
from unimodal_apps.studio.markup import render_filled
from unimodal_apps.studio.parameters import SAMPLING, Parameter, Parameters
from unimodal_apps.studio.pieces import input_column, offer_examples, picture_uploads, work_column
from unimodal_apps.studio.requested import requested
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

GAP_LENGTH = Parameter("gap_length", "Length of a gap", "Tokens of a gap without a number at most.", 1, 128)
_GAP_LENGTH = 16
_PLAIN = (
    "a <gap:1> car to the left of a <gap:1> house in a meadow",
    "once upon a time there was a <gap> and a green tree.",
)
_DESCRIPTION = "<gap:1> with a <gap> in the center and a <gap>"


def build(studio: Studio) -> None:
    pictures_work = not studio.pipe.vocab.is_text_only
    with gr.Row(equal_height=False):
        with input_column():
            text = gr.Textbox(
                label="Text with gaps",
                info="<gap> is a gap of free length, <gap:2> one of two tokens.",
                placeholder=_PLAIN[0],
                lines=4,
                max_lines=12,
                elem_id="infill-text",
            )
            controls = Controls("infill", "Fill in")
            with gr.Accordion("What the text answers", open=False, visible=pictures_work):
                question = gr.Textbox(label="Question", placeholder="describe the picture.", lines=1, max_lines=4)
                pictures = picture_uploads()
            parameters = Parameters(
                (GAP_LENGTH, *SAMPLING), studio.pipe.settings.understand, {"gap_length": _GAP_LENGTH}
            )
            examples: list[list[Any]] = [[plain, "", []] for plain in _PLAIN]
            if pictures_work:
                last = read_tour().questions[-1]
                examples.append([_DESCRIPTION, last.question, [str(bundled_picture(last.picture))]])
            offer_examples(examples, [text, question, pictures], [0])
        with work_column():
            bench = Workbench(
                studio, "infill", "Leave gaps in a text", "Only the gaps are masked; the words around them stay."
            )
            filled = gr.HTML(elem_classes="uni-result", elem_id="infill-filled")
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        stated = parameters.stated(values)
        gapped = needed(values[text], "The text")
        sources = read_uploads(values[pictures])
        if values[question] and values[question].strip():
            stated["prompt"] = values[question].strip()
        elif sources:
            raise ValueError("The pictures have no question. Write what the text answers, or take them away.")
        return requested(studio, Request(task="infill", text=gapped, seed=seed, sources=sources, arguments=stated))

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        answer = outcome.value
        return {filled: gr.update(value=render_filled(answer.text, answer.gaps or []), visible=True)}

    inputs = [text, question, pictures, *parameters.components]
    bench.connect(controls, inputs, prepare, [filled], show)
