"""Chat as a task of the engine: a conversation, and what comes of it piece by piece or in one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from unimodal import Stats
from unimodal.results import ChatEnd, ChatPicture, ChatStep, ChatText, FinishReason
from unimodal_apps.server.tasks import Call, Task, shares

Ended = Literal["stop", "length"]

# A picture without a valid size is an odd end, but one that the model chose.
ENDINGS: Mapping[FinishReason, Ended] = {
    "stop": "stop",
    "length": "length",
    "max_images": "length",
    "broken_header": "stop",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Texts and pictures in order, why it ended, and how many tokens it has and the conversation before it had."""

    segments: list[str | Image.Image]
    ended: Ended
    tokens: int
    prompt_tokens: int


@dataclass(frozen=True, kw_only=True)
class Chat(Task):
    """A conversation that is answered by itself: in pieces, or with pictures.

    Args:
        messages: as `Pipeline.chat` takes them.
        modalities: what the answer may hold.
    """

    messages: Sequence[Mapping[str, Any]]
    modalities: Sequence[str]

    kind = "chat"

    @property
    def key(self) -> Hashable:
        # The pipeline takes one conversation per call.
        return self.kind, id(self)

    @classmethod
    def together(cls, call: Call, tasks: Sequence[Chat]) -> tuple[list[Any], Stats]:
        [task] = tasks
        [source] = call.generators(tasks)
        events = call.pipe.stream_chat(
            task.messages,
            modalities=list(task.modalities),
            generator=source,
            callback_on_step_end=call.watch,
            **task.options,
        )
        prompt: int | None = None
        for event in events:
            if prompt is None and isinstance(event, ChatStep):
                prompt = len(event.values["state"].plan.prompts[0])
            if isinstance(event, ChatText | ChatPicture):
                call.emit(0, event)
            elif isinstance(event, ChatEnd):
                output = event.output
                answer = Answer(
                    segments=output.segments,
                    ended=ENDINGS[output.finish_reason],
                    tokens=output.stats.tokens,
                    prompt_tokens=prompt or 0,
                )
                return [answer], output.stats
        raise RuntimeError("the pipeline ended a conversation without an answer")


@dataclass(frozen=True, kw_only=True)
class Ask(Task):
    """A conversation that is answered with a text in one piece, together with others.

    Args:
        messages: as `Pipeline.chat` takes them.
    """

    messages: Sequence[Mapping[str, Any]]

    kind = "ask"
    modalities = ("text",)

    @classmethod
    def together(cls, call: Call, tasks: Sequence[Ask]) -> tuple[list[Any], Stats]:
        prompts: list[int] = []

        def watch(pipe: Any, step: int, timestep: int, values: dict[str, Any]) -> object:
            if step == 0:
                prompts.extend(map(len, values["state"].plan.prompts))
            return call.watch(pipe, step, timestep, values)

        result = call.pipe.chat_batch(
            [task.messages for task in tasks],
            generator=call.generators(tasks),
            callback_on_step_end=watch,
            **tasks[0].options,
        )
        eos = call.pipe.vocab.eos_id
        answers = shares(tasks, zip(result.texts, result.tokens, strict=True), result.dropped)
        return [
            # Nobody waits for what was dropped.
            Answer(
                segments=[text for text, _ in own if text],
                ended="stop" if all(tokens[-1] == eos for _, tokens in own) else "length",
                tokens=sum(len(tokens) for _, tokens in own),
                prompt_tokens=prompt,
            )
            for own, prompt in zip(answers, prompts, strict=True)
        ], result.stats
