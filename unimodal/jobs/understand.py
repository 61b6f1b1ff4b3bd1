"""Questions about pictures."""

from collections.abc import Sequence
from typing import Unpack

from unimodal.arguments import Generators, Pictures, read_generators, read_groups, read_texts
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import TextSampling, spelled_out
from unimodal.progress import StepCallback
from unimodal.results import Stats, UnderstandOutput


class Understand(Job):
    @spelled_out
    def understand(
        self,
        images: Pictures | Sequence[Pictures],
        question: str | Sequence[str],
        *,
        prompt_style: str | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[TextSampling],
    ) -> UnderstandOutput:
        """Answers a question about one or several pictures, or a list of questions each about its own.

        Args:
            images: PIL images or paths; with a list of questions one entry, a picture or several, for each.
            prompt_style: `chat`, or `bare` as the first published script had it.
            sprint: steps read only a part of what came before.
            callback_on_step_end: see `unimodal.progress.Progress`; it may drop samples.
            sampling: see `TextSampling`.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.understand.but(prompt_style=prompt_style, **sampling)
        questions = read_texts("question", question)
        groups = read_groups(images, question, questions)
        generators = read_generators(generator, len(questions))
        stats = Stats()
        grids = [[self._encode(picture, stats) for picture in self.sizes.for_understanding(group)] for group in groups]
        prompts = [
            self.sequences.understanding(group, text, settings.prompt_style)
            for group, text in zip(grids, questions, strict=True)
        ]
        self._check_room(prompts, settings.gen_length, "images, question, gen_length")
        progress = self._progress(callback_on_step_end, len(prompts))
        return self._answered(prompts, settings, self._writer(sprint), generators, stats, progress)
