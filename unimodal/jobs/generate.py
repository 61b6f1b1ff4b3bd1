"""Pictures from prompts."""

from collections.abc import Sequence
from typing import Any, Unpack

from unimodal.arguments import Generators, read_generators, read_texts, repeated
from unimodal.diffusion.guidance import prompt_guidance
from unimodal.jobs.job import Job
from unimodal.jobs.options import Sampling, spelled_out
from unimodal.progress import StepCallback
from unimodal.results import GenerateOutput, Stats


class Generate(Job):
    @spelled_out
    def generate(
        self,
        prompt: str | Sequence[str],
        *,
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
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[Sampling],
    ) -> GenerateOutput:
        """Draws pictures from a prompt or a list of prompts.

        Args:
            height, width: pixels of the picture, on the grid of the checkpoint.
            thinking: the model first writes what it will draw.
            guidance_scale: 1 is none.
            decoder: `turbo` or `normal`, with `decoder_steps`.
            generator: one per picture, or one from which each picture's own is seeded.
            sampling: see `Sampling`; `num_inference_steps` per block of codes.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.generate.but(
            height=height, width=width, guidance_scale=guidance_scale, guidance_rescale=guidance_rescale, **sampling
        )
        thinks = self.settings.thinking.but(
            "thinking_",
            num_inference_steps=thinking_num_inference_steps,
            gen_length=thinking_gen_length,
            temperature=sampling.get("temperature"),
        )
        prompts = repeated(read_texts("prompt", prompt), num_images_per_prompt)
        size = self.sizes.grid(settings.height, settings.width)
        generators = read_generators(generator, len(prompts))
        drawing = self._drawing(decoder, decoder_steps)
        stats, sequences, thoughts = Stats(), self.sequences, None
        with self._progress(callback_on_step_end) as progress:
            watching: dict[str, Any] = {"generators": generators, "stats": stats, "watch": progress.writing}
            if thinking:
                thoughts = self.writer.thoughts(prompts, thinks.sampling(), thinks.gen_length, **watching)
                branches = [
                    sequences.generation_after_thinking(text, thought, *size)
                    for text, thought in zip(prompts, thoughts, strict=True)
                ]
            else:
                branches = [sequences.generation(text, *size) for text in prompts]
            guidance = prompt_guidance(settings.guidance_scale, settings.guidance_rescale)
            sizes = [size] * len(prompts)
            codes = self.writer.pictures(branches, sizes, settings.sampling(), guidance, **watching)
            images = self._draw(codes, drawing, generators, stats, progress)
        texts = None if thoughts is None else [sequences.thought_text(thought) for thought in thoughts]
        return GenerateOutput(images=images, codes=codes, thinking=texts, stats=stats)
