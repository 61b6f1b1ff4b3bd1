"""Pictures from prompts."""

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from unimodal.arguments import Generators, read_generators, read_negatives, read_texts, repeated
from unimodal.diffusion.guidance import prompt_guidance
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import Sampling, spelled_out
from unimodal.progress import StepCallback
from unimodal.results import GenerateOutput, Stats
from unimodal.sequence import LEFT_OUT
from unimodal.settings import GenerateSettings, ThinkingSettings
from unimodal.writer import Watcher, Writer, drained


class Generate(Job):
    @spelled_out
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        thinking: bool = False,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_images_per_prompt: int = 1,
        thinking_num_inference_steps: int | None = None,
        thinking_gen_length: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[Sampling],
    ) -> GenerateOutput:
        """Draws pictures from a prompt or a list of prompts.

        Args:
            negative_prompt: guidance leads away from it; for all prompts, or one for each. It stands where guidance
                leaves the prompt out; if it has more tokens than the prompt its branch loses the first of them.
            height, width: pixels of the picture, on the grid of the checkpoint.
            thinking: the model first writes what it will draw.
            guidance_scale: 1 is none.
            decoder: `turbo` or `normal`, with `decoder_steps`.
            generator: one per picture, or one from which each picture's own is seeded.
            sprint: steps read only a part of what came before.
            callback_on_step_end: see `unimodal.progress.Progress`; it may drop samples.
            sampling: see `Sampling`; `num_inference_steps` per block of codes. Thinking takes the preset and the
                temperature.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.generate.but(
            height=height, width=width, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, **sampling
        )
        thinks = self.settings.thinking.but(
            "thinking_",
            preset=sampling.get("preset"),
            num_inference_steps=thinking_num_inference_steps,
            gen_length=thinking_gen_length,
            temperature=sampling.get("temperature"),
        )
        texts = read_texts("prompt", prompt)
        negatives = read_negatives(
            negative_prompt,
            len(texts),
            standard=LEFT_OUT,
            guided=settings.guidance_scale != 1,
            how="a guidance_scale other than 1",
        )
        prompts, negatives = repeated(texts, num_images_per_prompt), repeated(negatives, num_images_per_prompt)
        size = self.sizes.grid(settings.height, settings.width)
        generators = read_generators(generator, len(prompts))
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        with self._progress(callback_on_step_end, len(prompts)) as progress:
            codes, thoughts = self._picture_codes(
                prompts,
                negatives,
                size,
                settings,
                thinks if thinking else None,
                self._writer(sprint),
                progress.writing,
                generators=generators,
                stats=stats,
                wanted=progress.wanted,
            )
            codes, thoughts = progress.stayed(codes), None if thoughts is None else progress.stayed(thoughts)
            images = self._draw(codes, drawing, progress.stayed(generators), stats, progress)
        return GenerateOutput(images=images, codes=codes, thinking=thoughts, dropped=progress.dropped, stats=stats)

    def _picture_codes(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str],
        size: tuple[int, int],
        settings: GenerateSettings,
        thinks: ThinkingSettings | None,
        writer: Writer,
        watch: Watcher,
        **drawing: Any,
    ) -> tuple[list[Tensor], list[str] | None]:
        """The codes [H, W] of one picture per prompt, and the thoughts before each if the model is to think."""
        sequences, thoughts = self.sequences, None
        self._check_prompts(prompts, size, None if thinks is None else thinks.gen_length)
        if thinks is None:
            branches = [
                sequences.generation(text, *size, negative=negative)
                for text, negative in zip(prompts, negatives, strict=True)
            ]
        else:
            written = writer.thoughts(prompts, thinks.sampling(), thinks.gen_length, watch=watch, **drawing)
            thoughts = [sequences.thought_text(thought) for thought in written]
            branches = [
                sequences.generation_after_thinking(text, thought, *size, negative=negative)
                for text, thought, negative in zip(prompts, written, negatives, strict=True)
            ]
        guidance = prompt_guidance(settings.guidance_scale, settings.guidance_rescale)
        steps = writer.picture_steps(branches, [size] * len(prompts), settings.sampling(), guidance, **drawing)
        return drained(steps, watch), thoughts

    def _check_prompts(self, prompts: Sequence[str], size: tuple[int, int], thinking_length: int | None) -> None:
        """Refuses prompts that leave no room for the codes, and for thoughts before them if there are any."""
        height, width = size
        if thinking_length is None:
            branches = [self.sequences.generation(text, height, width).prompt for text in prompts]
            self._check_room(branches, height * width, "prompt, height, width")
        else:
            asked = [self.sequences.thinking(text) for text in prompts]
            length = thinking_length + len(self.sequences.header(height, width)) + height * width
            self._check_room(asked, length, "prompt, thinking_gen_length, height, width")
