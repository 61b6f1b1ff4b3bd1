"""Classifier-free guidance for pictures (arXiv 2207.12598), with the rescale of arXiv 2305.08891, equation 15 and 16.

A guidance says how many branches run side by side and how their logits become one. The branches share what is
generated and differ in the prompt.

Legend: G branches, N samples, B positions, V the whole vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

STANDARD_RESCALE = 0.7


class Guidance(Protocol):
    @property
    def num_branches(self) -> int:
        """Branches to run, the conditional one among them."""
        ...

    @property
    def needs_whole_vocabulary(self) -> bool:
        """Whether `combine` mixes logits of tokens that cannot be chosen into those that can."""
        ...

    def combine(self, logits: Tensor, places: Tensor | None = None) -> Tensor:
        """Guided logits [N, B, V] from those of the branches [G, N, B, V], the conditional branch first.

        Args:
            places: of the block, int64 [P], if these are logits of some of them only, [G, N, P, V] -> [N, P, V].
        """
        ...

    def select(self, samples: Tensor) -> "Guidance":
        """The guidance of some of the samples, int64 [n], in that order."""
        ...


class Alike:
    """A guidance that is the same for all samples."""

    def select(self, samples: Tensor) -> Self:
        return self


@dataclass(frozen=True, kw_only=True)
class NoGuidance(Alike):
    """The conditional branch alone."""

    @property
    def num_branches(self) -> int:
        return 1

    @property
    def needs_whole_vocabulary(self) -> bool:
        return False

    def combine(self, logits: Tensor, places: Tensor | None = None) -> Tensor:
        return logits[0]


@dataclass(frozen=True, kw_only=True)
class PromptGuidance(Alike):
    """Two branches: with the prompt, and with `<uncondition>` in its place. A scale of 1 changes nothing, 0 ignores
    the prompt.
    """

    scale: float
    rescale: float = STANDARD_RESCALE

    @property
    def num_branches(self) -> int:
        return 2

    @property
    def needs_whole_vocabulary(self) -> bool:
        return self.rescale != 0

    def combine(self, logits: Tensor, places: Tensor | None = None) -> Tensor:
        conditional, unconditional = logits
        guided = unconditional + self.scale * (conditional - unconditional)
        return rescaled(guided, conditional, self.rescale)


@dataclass(frozen=True, kw_only=True)
class EditGuidance(Alike):
    """Three branches: everything, the text dropped, the picture dropped (as in InstructPix2Pix, arXiv 2211.09800,
    with the roles of the first two terms exchanged). The last branch does not run when the picture's scale is 0, for
    nothing depends on it then."""

    text_scale: float
    image_scale: float
    rescale: float = STANDARD_RESCALE

    @property
    def num_branches(self) -> int:
        return 2 if self.image_scale == 0 else 3

    @property
    def needs_whole_vocabulary(self) -> bool:
        return self.rescale != 0

    def combine(self, logits: Tensor, places: Tensor | None = None) -> Tensor:
        full, without_text = logits[0], logits[1]
        guided = without_text + self.text_scale * (full - without_text)
        if self.image_scale != 0:
            guided = guided + self.image_scale * (without_text - logits[2])
        return rescaled(guided, full, self.rescale)


def rescaled(guided: Tensor, conditional: Tensor, strength: float) -> Tensor:
    """Pulls the spread of guided logits back to that of the conditional ones; both [..., V], the standard deviation
    is over V and unbiased.

    Args:
        strength: 0 leaves the logits as they are, 1 gives them exactly the conditional spread.
    """
    if strength == 0:
        return guided
    spread = conditional.std(dim=-1, keepdim=True) / (guided.std(dim=-1, keepdim=True) + 1e-6)
    return strength * (guided * spread) + (1 - strength) * guided


def prompt_guidance(scale: float, rescale: float = STANDARD_RESCALE) -> Guidance:
    """Two-way guidance; a scale of exactly 1 is none.

    Raises:
        ValueError: a negative scale, or a rescale outside [0, 1].
    """
    _check("guidance_scale", scale)
    _check_rescale(rescale)
    return NoGuidance() if scale == 1 else PromptGuidance(scale=scale, rescale=rescale)


def edit_guidance(text_scale: float, image_scale: float, rescale: float = STANDARD_RESCALE) -> Guidance:
    """Three-way guidance; both scales 0 is none.

    Raises:
        ValueError: a negative scale, or a rescale outside [0, 1].
    """
    _check("text_guidance_scale", text_scale)
    _check("image_guidance_scale", image_scale)
    _check_rescale(rescale)
    if text_scale == 0 and image_scale == 0:
        return NoGuidance()
    return EditGuidance(text_scale=text_scale, image_scale=image_scale, rescale=rescale)


def _check(name: str, scale: float) -> None:
    if not 0 <= scale < float("inf"):
        raise ValueError(f"{name}: got {scale}, it must be a finite number of 0 or more")


def _check_rescale(rescale: float) -> None:
    if not 0 <= rescale <= 1:
        raise ValueError(f"guidance_rescale: got {rescale}, it must be between 0 and 1")
