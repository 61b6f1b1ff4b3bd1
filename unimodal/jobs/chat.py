"""Conversations: several turns, with pictures in any of them and, if asked for, in the answers."""

import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import torch
from PIL import Image
from torch import Tensor

from unimodal.answers import Answer, InterleavedAnswer, TextAnswer
from unimodal.arguments import Generators, read_generators
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import InterleavedSampling, TextSampling, spelled_out
from unimodal.messages import Message, read_messages
from unimodal.progress import StepCallback
from unimodal.results import ChatEnd, ChatEvent, ChatOutput, ChatPicture, ChatStep, ChatText, Stats, UnderstandOutput
from unimodal.sequence import INTERLEAVE, UNDERSTAND, Turn
from unimodal.settings import DecoderSettings
from unimodal.writer import WritingStep

Messages = Sequence[Mapping[str, Any]]

MODALITIES = ("text", "image")


class ChatOptions(InterleavedSampling, total=False):
    """Options of `chat`; those about pictures need "image" among the modalities.

    Args:
        modalities: ("text",), which is what None means, or ("text", "image"): what the answer may hold.
        decoder: `turbo` or `normal`, with `decoder_steps`.
        sprint: steps read only a part of what came before.
        generator: draws the tokens and the noise of the pictures.
        callback_on_step_end: see `unimodal.progress.Progress`.
    """

    modalities: Sequence[str] | None
    decoder: str | None
    decoder_steps: int | None
    sprint: SprintOptions | None
    generator: torch.Generator | None
    callback_on_step_end: StepCallback | None


class Chat(Job):
    @spelled_out
    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatOutput:
        """Answers the last message of a conversation.

        One question about pictures is asked exactly as `understand` asks it, and one request for text and pictures as
        `interleave` does. A conversation of text alone is written in the template of the checkpoint's text tokenizer,
        if it has one. A system message follows the model's own.

        Args:
            messages: see `unimodal.messages`; append the `message` of the result to go on.
            options: see `ChatOptions`.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        *_, end = self.stream_chat(messages, **options)
        assert isinstance(end, ChatEnd)
        return end.output

    @spelled_out
    def stream_chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Iterator[ChatEvent]:
        """The same, as it is made: a `ChatStep` after each step of the sampler, `ChatText` where more of a text is
        settled, `ChatPicture` for each picture, and at last `ChatEnd` with what `chat` returns.

        Arguments are checked before anything is yielded. Whoever stops taking events ends the work.
        """
        system, read = read_messages(messages)
        draws = _read_modalities(options.pop("modalities", None))
        decoder, decoder_steps = options.pop("decoder", None), options.pop("decoder_steps", None)
        callback, writer = options.pop("callback_on_step_end", None), self._writer(options.pop("sprint", None))
        [source] = read_generators(options.pop("generator", None), 1)
        stats = Stats()
        if draws:
            settings = self.settings.interleave.but(**options)
            drawing = self._drawing(decoder, decoder_steps)
            opening = self.sequences.conversation(_system(INTERLEAVE, system), self._turns(read, stats))
            self._check_room([opening.prompt], 1, "messages")
            answer = InterleavedAnswer(writer, opening, settings, generator=source, stats=stats)
            return self._events(answer, drawing, source, stats, callback)
        for name, value in {**options, "decoder": decoder, "decoder_steps": decoder_steps}.items():
            if value is not None and name not in typing.get_type_hints(TextSampling):
                raise ValueError(f"{name}: got {value!r}, it needs 'image' in modalities")
        settings = self.settings.understand.but(**options)
        prompt = self._text_prompt(system, read, stats)
        self._check_room([prompt], settings.gen_length, "messages, gen_length")
        answer = TextAnswer(writer, prompt, settings, generator=source, stats=stats)
        return self._events(answer, None, source, stats, callback)

    @spelled_out
    def chat_batch(
        self,
        conversations: Sequence[Messages],
        *,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[TextSampling],
    ) -> UnderstandOutput:
        """Answers several conversations together with text, each as `chat` answers it alone.

        Args:
            conversations: the messages of each.
            sprint: steps read only a part of what came before.
            generator: one per conversation, or one from which each conversation's own is seeded.
            callback_on_step_end: see `unimodal.progress.Progress`; it may drop samples.
            sampling: see `TextSampling`.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.understand.but(**sampling)
        if not conversations:
            raise ValueError("conversations: got none, at least one is needed")
        read = [read_messages(messages) for messages in conversations]
        generators = read_generators(generator, len(read))
        stats = Stats()
        prompts = [self._text_prompt(system, messages, stats) for system, messages in read]
        self._check_room(prompts, settings.gen_length, "messages, gen_length")
        progress = self._progress(callback_on_step_end, len(prompts))
        return self._answered(prompts, settings, self._writer(sprint), generators, stats, progress)

    def _text_prompt(self, system: str | None, messages: Sequence[Message], stats: Stats) -> list[int]:
        """The tokens of a conversation up to where an answer of text alone begins."""
        turns = self._turns(messages, stats)
        if not any(isinstance(part, Tensor) for turn in turns for part in turn.parts):
            plain = self.sequences.plain_conversation(system, turns)
            if plain is not None:
                return plain
        return self.sequences.conversation(_system(UNDERSTAND, system), turns).prompt

    def _turns(self, messages: Sequence[Message], stats: Stats) -> list[Turn]:
        """The messages with their pictures as codes."""
        pictures = [part for message in messages for part in message.parts if isinstance(part, Image.Image)]
        fitted = self.sizes.for_understanding(pictures) if pictures else []
        grids = iter([self._encode(picture, stats) for picture in fitted])
        return [
            Turn(
                role=message.role,
                parts=[next(grids) if isinstance(part, Image.Image) else part for part in message.parts],
            )
            for message in messages
        ]

    def _events(
        self,
        answer: Answer,
        drawing: DecoderSettings | None,
        source: torch.Generator,
        stats: Stats,
        callback: StepCallback | None,
    ) -> Iterator[ChatEvent]:
        segments: list[str | Image.Image] = []
        drawn: list[Tensor] = []
        written = ""
        with self._progress(callback) as progress:
            for part in answer:
                if isinstance(part, WritingStep):
                    progress.writing(part)
                    yield ChatStep(values=progress.values(part))
                    if part.stage == "text":
                        settled = self._settled(part)
                        if len(settled) > len(written):
                            yield ChatText(segment=len(segments), text=settled[len(written) :])
                            written = settled
                elif isinstance(part, str):
                    if len(part) > len(written):
                        yield ChatText(segment=len(segments), text=part[len(written) :])
                    segments.append(part)
                    written = ""
                else:
                    assert drawing is not None
                    [image] = self._draw([part], drawing, [source], stats, progress)
                    yield ChatPicture(segment=len(segments), image=image, codes=part)
                    segments.append(image)
                    drawn.append(part)
        output = ChatOutput(segments=segments, codes=drawn, finish_reason=answer.finish_reason, stats=stats)
        yield ChatEnd(output=output)

    def _settled(self, step: WritingStep) -> str:
        """The beginning of a text that no later step changes; a character whose bytes are not all there, and white
        space that may be the last, wait.
        """
        vocab = self.vocab
        [sample] = step.state.samples
        tokens = sample.tokens[: step.settled(sample)].tolist()
        # The header of a picture is no text.
        known = tokens[: tokens.index(vocab.soi_id)] if vocab.soi_id in tokens else tokens
        return self.sequences.plain_text(known).rstrip("\ufffd").strip()


def _system(own: str, given: str | None) -> str:
    return own if given is None else f"{own} {given}"


def _read_modalities(modalities: Any) -> bool:
    """Whether the answer may hold pictures."""
    if modalities is None:
        return False
    if isinstance(modalities, str) or not isinstance(modalities, Sequence) or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities: got {modalities!r}, it must be a list of {' and '.join(map(repr, MODALITIES))}")
    if "text" not in modalities:
        raise ValueError(f"modalities: got {list(modalities)!r}, an answer may always hold text")
    return "image" in modalities
