"""What the jobs return."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image
from torch import Tensor

FinishReason = Literal["stop", "length", "max_images", "broken_header"]


@dataclass(kw_only=True)
class Stats:
    """What a call cost.

    Args:
        forwards: passes through the backbone, of whatever batch.
        tokens: tokens generated, over all samples.
        seconds: time per stage.
    """

    forwards: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_forward(self) -> float:
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens generated per second of the backbone's stages."""
        spent = sum(self.seconds.get(stage, 0.0) for stage in ("text", "thinking", "picture"))
        return self.tokens / spent if spent else 0.0

    def add_seconds(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(kw_only=True)
class UnderstandOutput:
    """Answers to questions.

    Args:
        texts: one per question.
        tokens: the generated ids, int64 [n] per question, the stop token included.
        dropped: places of the samples that `callback_on_step_end` dropped; the lists are those of the others.
    """

    texts: list[str]
    tokens: list[Tensor]
    stats: Stats
    dropped: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The first answer."""
        return self.texts[0]


@dataclass(kw_only=True)
class InfillOutput:
    """Texts whose gaps are filled.

    Args:
        texts: one per text with gaps.
        fillings: what was written into the gaps of each, in order.
        tokens: int64 [n] per text, those that were known and those in the gaps.
        dropped: places of the samples that `callback_on_step_end` dropped; the lists are those of the others.
    """

    texts: list[str]
    fillings: list[list[str]]
    tokens: list[Tensor]
    stats: Stats
    dropped: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0]

    @property
    def gaps(self) -> list[str]:
        """What was written into the gaps of the first text."""
        return self.fillings[0]


@dataclass(kw_only=True)
class LikelihoodOutput:
    """How likely a model finds a text or a picture; the estimate is a lower bound in expectation.

    Args:
        log_likelihood: in nats.
        standard_error: of the estimate, in nats; 0 where nothing is random.
        tokens: what the likelihood is of, the end of a text included.
        samples: random masks of each block that it is the mean of.
    """

    log_likelihood: float
    standard_error: float
    tokens: int
    samples: int
    stats: Stats

    @property
    def bits_per_token(self) -> float:
        """An upper bound, as `perplexity`."""
        return -self.log_likelihood / (self.tokens * math.log(2))

    @property
    def perplexity(self) -> float:
        return math.exp(-self.log_likelihood / self.tokens)


@dataclass(kw_only=True)
class GenerateOutput:
    """Pictures from prompts, those of the first prompt first.

    Args:
        images: RGB.
        codes: int64 [H, W] per picture.
        thinking: the thoughts before each picture, None if there was no thinking.
        dropped: places of the samples that `callback_on_step_end` dropped; the lists are those of the others.
    """

    images: list[Image.Image]
    codes: list[Tensor]
    thinking: list[str] | None
    stats: Stats
    dropped: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class EditOutput:
    """Edited pictures, one per instruction and repetition.

    Args:
        images: RGB.
        codes: int64 [H, W] per picture.
        dropped: places of the samples that `callback_on_step_end` dropped; the lists are those of the others.
    """

    images: list[Image.Image]
    codes: list[Tensor]
    stats: Stats
    dropped: list[int] = field(default_factory=list)


@dataclass(kw_only=True)
class InterleaveOutput:
    """Text and pictures in the order they were made.

    Args:
        segments: texts and RGB pictures.
        codes: int64 [H, W] of each picture.
        finish_reason: the model ended (`stop`), ran out of tokens (`length`), made as many pictures as allowed
            (`max_images`), or announced a picture without a valid size (`broken_header`).
    """

    segments: list[str | Image.Image]
    codes: list[Tensor]
    finish_reason: FinishReason
    stats: Stats

    @property
    def text(self) -> str:
        """The texts alone, one per line."""
        return "\n".join(segment for segment in self.segments if isinstance(segment, str))

    @property
    def images(self) -> list[Image.Image]:
        """The pictures alone."""
        return [segment for segment in self.segments if not isinstance(segment, str)]


@dataclass(kw_only=True)
class ChatOutput(InterleaveOutput):
    """An answer in a conversation, of text or of text and pictures."""

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to go on with; pictures keep their codes, so that they need not be encoded."""
        if not self.codes:
            return {"role": "assistant", "content": self.text}
        codes = iter(self.codes)
        parts = [
            {"type": "text", "text": segment}
            if isinstance(segment, str)
            else {"type": "image", "image": segment, "codes": next(codes)}
            for segment in self.segments
        ]
        return {"role": "assistant", "content": parts}


@dataclass(frozen=True, kw_only=True)
class ChatStep:
    """A step of the sampler.

    Args:
        values: as `callback_on_step_end` gets them: `stage`, `state` and, of pictures, `grids`.
    """

    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ChatText:
    """More of a text, that no later step changes.

    Args:
        segment: the place in `segments` of the text to which this is added.
    """

    segment: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ChatPicture:
    """A finished picture.

    Args:
        segment: its place in `segments`.
        codes: int64 [H, W].
    """

    segment: int
    image: Image.Image
    codes: Tensor


@dataclass(frozen=True, kw_only=True)
class ChatEnd:
    """The whole answer, the last of the events."""

    output: ChatOutput


ChatEvent = ChatStep | ChatText | ChatPicture | ChatEnd
