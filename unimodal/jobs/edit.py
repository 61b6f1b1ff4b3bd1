"""Pictures changed by an instruction, or made from several."""

from collections.abc import Sequence
from typing import Unpack

from unimodal.arguments import Generators, Pictures, read_generators, read_groups, read_texts, repeated
from unimodal.diffusion.guidance import edit_guidance
from unimodal.jobs.job import Job
from unimodal.jobs.options import Sampling, spelled_out
from unimodal.progress import StepCallback
from unimodal.results import EditOutput, Stats


class Edit(Job):
    @spelled_out
    def edit(
        self,
        images: Pictures | Sequence[Pictures],
        instruction: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_images_per_prompt: int = 1,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[Sampling],
    ) -> EditOutput:
        """Changes a picture by an instruction, or makes one from several; lists of instructions each with their own
        pictures.

        Args:
            images: the picture, or several references; PIL images or paths.
            height, width: pixels of the result; None is the size of the first picture, fitted to the model.
            text_guidance_scale, image_guidance_scale: how much the instruction and the picture weigh; both 0 is no
                guidance.
            sampling: see `Sampling`; `num_inference_steps` per block of codes.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.edit.but(
            text_guidance_scale=text_guidance_scale,
            image_guidance_scale=image_guidance_scale,
            guidance_rescale=guidance_rescale,
            **sampling,
        )
        instructions = read_texts("instruction", instruction)
        groups = read_groups(images, instruction, instructions)
        if (height is None) != (width is None):
            raise ValueError(f"height, width: got {height} and {width}, give both or none")
        size = None if height is None or width is None else self.sizes.grid(height, width)
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [[self._encode(self.sizes.for_editing(picture), stats) for picture in group] for group in groups]
        pairs = repeated(list(zip(grids, instructions, strict=True)), num_images_per_prompt)
        sizes = [size or (group[0].shape[0], group[0].shape[1]) for group, _ in pairs]
        generators = read_generators(generator, len(pairs))
        branches = [
            self.sequences.editing(group, text, *target) for (group, text), target in zip(pairs, sizes, strict=True)
        ]
        scales = settings.text_guidance_scale, settings.image_guidance_scale
        with self._progress(callback_on_step_end) as progress:
            codes = self.writer.pictures(
                branches,
                sizes,
                settings.sampling(),
                edit_guidance(*scales, settings.guidance_rescale),
                generators=generators,
                stats=stats,
                watch=progress.writing,
            )
            edited = self._draw(codes, drawing, generators, stats, progress)
        return EditOutput(images=edited, codes=codes, stats=stats)
