"""Answers of text and pictures in turn."""

from typing import Any

import gradio as gr

from unimodal.quickstart.tour import read_tour
from unimodal_apps.requests import Request
from unimodal_apps.studio.inputs import needed, read_uploads
from unimodal_apps.studio.markup import render_story
from unimodal_apps.studio.parameters import (
    DECODER,
    GUIDANCE,
    IMAGE_STEPS,
    LENGTH,
    SAMPLING,
    SPRINT,
    TEXT_GUIDANCE,
    Parameter,
    Parameters,
)
from unimodal_apps.studio.pieces import input_column, offer_examples, picture_uploads, work_column
from unimodal_apps.studio.requested import requested, saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

MOST = Parameter("max_images", "Pictures", "The story ends with this many.", 1, 12)
OTHER_STORIES = (
    "tell a story about a red boat and a green tree in two pictures.",
    "a picture story about a yellow cat in three pictures.",
)


def build(studio: Studio) -> None:
    settings = studio.pipe.settings
    with gr.Row(equal_height=False):
        with input_column():
            prompt = gr.Textbox(
                label="Prompt", placeholder=OTHER_STORIES[0], lines=3, max_lines=8, elem_id="story-prompt"
            )
            controls = Controls("story", "Tell")
            fields = (MOST, LENGTH, IMAGE_STEPS, GUIDANCE, TEXT_GUIDANCE, *SAMPLING, SPRINT, DECODER)
            parameters = Parameters(fields, settings.interleave, {"decoder": settings.decoder.decoder})
            with gr.Accordion("Pictures to begin with", open=False):
                pictures = picture_uploads()
            offer_examples([[read_tour().story], *([text] for text in OTHER_STORIES)], [prompt])
        with work_column():
            bench = Workbench(studio, "story", "Begin a story", "Sentences and pictures follow one another.")
            story = gr.HTML(elem_classes="uni-result", elem_id="story-told")
            files = gr.Files(label="Pictures of the story", visible=False, interactive=False)
            bench.footer()

    def prepare(seed: int, values: Values) -> Work:
        stated = parameters.stated(values)
        sources = read_uploads(values[pictures])
        text = needed(values[prompt], "The prompt")
        return requested(studio, Request(task="interleave", text=text, seed=seed, sources=sources, arguments=stated))

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        answer = outcome.value
        paths = saved_pictures(studio, work, answer.images)
        return {
            story: gr.update(value=render_story(answer.segments), visible=True),
            files: gr.update(value=paths or None, visible=bool(paths)),
        }

    inputs = [prompt, pictures, *parameters.components]
    bench.connect(controls, inputs, prepare, [story, files], show, submit=[prompt])
