"""Conversations with pictures in and out."""

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from unimodal import Pipeline
from unimodal.output_files import file_name
from unimodal.quickstart.tour import bundled_picture, read_tour
from unimodal_apps.recorded_messages import load_messages, record_messages
from unimodal_apps.requests import Request, as_called
from unimodal_apps.session import seeded
from unimodal_apps.studio.frames import Recorder
from unimodal_apps.studio.inputs import read_uploads
from unimodal_apps.studio.parameters import DECODER, GUIDANCE, LENGTH, SAMPLING, SPRINT, Parameter, Parameters
from unimodal_apps.studio.pieces import input_column, offer_examples, work_column
from unimodal_apps.studio.requested import saved_pictures
from unimodal_apps.studio.studio import Outcome, Studio, Work
from unimodal_apps.studio.workbench import Controls, Values, Workbench

MOST = Parameter("max_images", "Pictures", "An answer with pictures ends with this many.", 1, 12)
_WITH_PICTURES = ("decoder", "guidance_scale", "max_images")
"""Parameters that only count where the answer may hold pictures."""


@dataclass(frozen=True)
class Conversation:
    """What was said: as the pipeline takes it, with a `Source` for each picture that was shown, and as the page shows
    it.
    """

    messages: tuple[dict[str, Any], ...] = ()
    shown: tuple[dict[str, Any], ...] = ()

    def and_then(self, message: dict[str, Any], shown: list[Any]) -> "Conversation":
        more = tuple({"role": message["role"], "content": content} for content in shown)
        return Conversation((*self.messages, message), (*self.shown, *more))


@dataclass(frozen=True, kw_only=True)
class ChatWork(Work):
    """A turn, with the conversation up to its question."""

    asked: Conversation = field(default_factory=Conversation)


def build(studio: Studio) -> None:
    settings = studio.pipe.settings
    draws = not studio.pipe.vocab.is_text_only
    with gr.Row(equal_height=False):
        with input_column(5):
            chatbot = gr.Chatbot(
                show_label=False,
                height=430,
                layout="bubble",
                buttons=["copy"],
                placeholder="Say something, or add a picture and ask about it.",
                elem_id="chat-messages",
                elem_classes="uni-chat",
            )
            message = gr.MultimodalTextbox(
                show_label=False,
                placeholder="Message",
                file_count="multiple",
                sources=["upload"] if draws else [],
                submit_btn=False,
                elem_id="chat-message",
            )
            pictures = gr.Checkbox(
                value=False,
                visible=draws,
                label="Answer with pictures",
                info="Text and pictures in turn, as in a story.",
            )
            controls = Controls("chat", "Send")
            anew = gr.Button("New conversation", size="sm")
            parameters = Parameters(
                (LENGTH, MOST, GUIDANCE, *SAMPLING, SPRINT, DECODER),
                settings.interleave,
                {"decoder": settings.decoder.decoder},
            )
            offer_examples(_examples(draws), [message, pictures], [0])
        with work_column(6):
            bench = Workbench(studio, "chat", "Talk", "Every answer settles here before it joins the conversation.")
            bench.footer()
    conversation = gr.State(Conversation())

    def prepare(seed: int, values: Values) -> ChatWork:
        said = values[message] or {}
        text, uploads = (said.get("text") or "").strip(), said.get("files") or []
        sources = read_uploads(uploads)
        if not text and not sources:
            raise ValueError("The message is empty. Write something, or choose an example.")
        parts: list[dict[str, Any]] = [{"type": "image", "image": source} for source in sources]
        parts += [{"type": "text", "text": text}] if text else []
        asked = values[conversation].and_then(
            {"role": "user", "content": parts}, [*({"path": path} for path in uploads), *([text] if text else [])]
        )
        stated = parameters.stated(values)
        modalities = ["text", "image"] if values[pictures] else ["text"]
        if not values[pictures]:
            stated = {name: value for name, value in stated.items() if name not in _WITH_PICTURES}

        def call(pipe: Pipeline, recorder: Recorder) -> Outcome:
            answer = pipe.chat(
                load_messages(asked.messages),
                modalities=modalities,
                generator=seeded(seed),
                callback_on_step_end=recorder,
                **as_called(stated),
            )
            return Outcome(value=answer, stats=answer.stats)

        arguments = {**stated, "modalities": modalities}
        facts = {"task": "chat", "prompt": text, "model": studio.model, "seed": seed, "arguments": arguments}
        request = Request(task="chat", text=text, seed=seed, sources=sources, arguments=stated)
        return ChatWork(name=file_name(text or "picture", seed), facts=facts, call=call, request=request, asked=asked)

    def begin(work: Work) -> dict[Any, Any]:
        assert isinstance(work, ChatWork)
        return {chatbot: list(work.asked.shown)}

    def show(work: Work, outcome: Outcome) -> dict[Any, Any]:
        assert isinstance(work, ChatWork)
        messages, sources = record_messages(work.asked.messages)
        paths = iter(saved_pictures(studio, work, outcome.value.images, {"messages": messages, "sources": sources}))
        shown = [segment if isinstance(segment, str) else {"path": next(paths)} for segment in outcome.value.segments]
        answered = work.asked.and_then(outcome.value.message, shown or ["(nothing)"])
        return {chatbot: list(answered.shown), conversation: answered, message: None}

    inputs = [message, pictures, conversation, *parameters.components]
    bench.connect(
        controls,
        inputs,
        prepare,
        [],
        show,
        submit=[message],
        kept=[chatbot, conversation, message],
        begin=begin,
    )
    anew.click(
        lambda: (Conversation(), [], None),
        None,
        [conversation, chatbot, message],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )


def _examples(draws: bool) -> list[list[Any]]:
    if not draws:
        return [[{"text": "What is a diffusion language model?", "files": []}, False]]
    tour = read_tour()
    asked = [
        [{"text": entry.question, "files": [str(bundled_picture(entry.picture))]}, False]
        for entry in (tour.questions[0], tour.questions[-1])
    ]
    return [*asked, [{"text": tour.story, "files": []}, True]]
