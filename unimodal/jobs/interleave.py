"""Answers of text and pictures in turn."""

from collections.abc import Sequence
from typing import Any, Unpack, overload

from PIL import Image
from torch import Tensor

from unimodal.answers import InterleavedAnswers
from unimodal.arguments import Generators, Pictures, read_generators, read_groups, read_texts
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import InterleavedSampling, spelled_out
from unimodal.picture_input import read_pictures
from unimodal.progress import StepCallback
from unimodal.results import InterleaveOutput, Stats
from unimodal.sequence import INTERLEAVE, Turn
from unimodal.writer import WritingStep


class Interleave(Job):
    @overload
    def interleave(
        self,
        prompt: str,
        images: Pictures = (),
        *,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[InterleavedSampling],
    ) -> InterleaveOutput: ...

    @overload
    def interleave(
        self,
        prompt: Sequence[str],
        images: Sequence[Pictures] = (),
        *,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[InterleavedSampling],
    ) -> list[InterleaveOutput]: ...

    @spelled_out
    def interleave(
        self,
        prompt: str | Sequence[str],
        images: Pictures | Sequence[Pictures] = (),
        *,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[InterleavedSampling],
    ) -> InterleaveOutput | list[InterleaveOutput]:
        """Answers with text and pictures in turn; of a list of prompts each, together, as it is answered alone.

        Args:
            images: pictures that the prompt speaks of, and that the answer goes on from; with a list of prompts none,
                or one entry, a picture or several, for each.
            sprint: steps read only a part of what came before.
            generator: one per prompt, or one from which each prompt's own is seeded.
            callback_on_step_end: see `unimodal.progress.Progress`. The samples of a step are those that write or draw
                together then, in the order of their prompts.
            sampling: see `InterleavedSampling`.

        Returns:
            the answer, or a list of answers whose `stats` are those of the whole call.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.interleave.but(**sampling)
        texts = read_texts("prompt", prompt)
        references = _read_references(images, prompt, texts)
        generators = read_generators(generator, len(texts))
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [[self._encode(picture, stats) for picture in self.sizes.for_understanding(own)] for own in references]
        openings = [
            self.sequences.conversation(INTERLEAVE, [Turn(role="user", parts=[*own, text])])
            for own, text in zip(grids, texts, strict=True)
        ]
        self._check_room([opening.prompt for opening in openings], 1, "prompt, images")
        answers = InterleavedAnswers(self._writer(sprint), openings, settings, generators=generators, stats=stats)
        segments: list[list[str | Image.Image]] = [[] for _ in texts]
        codes: list[list[Tensor]] = [[] for _ in texts]
        with self._progress(callback_on_step_end) as progress:
            for part in answers:
                if isinstance(part, WritingStep):
                    progress.writing(part)
                    continue
                drawn = {place: segment for place, segment in part.items() if isinstance(segment, Tensor)}
                pictures: list[Image.Image] = []
                if drawn:
                    sources = [generators[place] for place in drawn]
                    pictures = self._draw(list(drawn.values()), drawing, sources, stats, progress)
                for (place, grid), picture in zip(drawn.items(), pictures, strict=True):
                    codes[place].append(grid)
                    segments[place].append(picture)
                for place, segment in part.items():
                    if isinstance(segment, str):
                        segments[place].append(segment)
        results = [
            InterleaveOutput(segments=told, codes=own, finish_reason=reason, stats=stats)
            for told, own, reason in zip(segments, codes, answers.finish_reasons, strict=True)
        ]
        return results[0] if isinstance(prompt, str) else results


def _read_references(images: Any, prompt: str | Sequence[str], texts: Sequence[str]) -> list[list[Image.Image]]:
    """The pictures of each text, which may be none."""
    if isinstance(prompt, str):
        return [read_pictures(images)]
    if isinstance(images, list | tuple) and not images:
        return [[] for _ in texts]
    return read_groups(images, prompt, texts)
