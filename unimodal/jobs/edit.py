"""Pictures changed by an instruction, or made from several."""

from collections.abc import Sequence
from typing import Unpack

from unimodal.arguments import (
    Generators,
    Pictures,
    read_generators,
    read_groups,
    read_negatives,
    read_texts,
    repeated,
)
from unimodal.diffusion.guidance import edit_guidance
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.job import Job
from unimodal.jobs.options import Sampling, spelled_out
from unimodal.masked_edit import read_masks
from unimodal.picture_input import Picture
from unimodal.progress import StepCallback
from unimodal.results import EditOutput, Stats
from unimodal.sequence import LEFT_OUT
from unimodal.writer import drained


class Edit(Job):
    @spelled_out
    def edit(
        self,
        images: Pictures | Sequence[Pictures],
        instruction: str | Sequence[str],
        *,
        mask_image: Picture | Sequence[Picture | None] | None = None,
        mask_feather: int | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_images_per_prompt: int = 1,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        sprint: SprintOptions | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
        **sampling: Unpack[Sampling],
    ) -> EditOutput:
        """Changes a picture by an instruction, or makes one from several; lists of instructions each with their own
        pictures.

        Args:
            images: the picture, or several references; PIL images or paths.
            mask_image: what may change of the (first) picture, white or, where some of it is transparent, what is
                opaque; with a list of instructions one for all, or one for each. All codes outside it stay, and the
                result is the picture as it was given, in its own size, with what was drawn pasted into the mask. A
                mask that is white everywhere is none.
            mask_feather: pixels around the mask over which the pasted part fades out; 0 is a hard border, None is 8.
            negative_prompt: guidance leads away from it; it stands where guidance leaves the instruction out.
            height, width: pixels of the result; None is the size of the first picture, fitted to the model.
            text_guidance_scale, image_guidance_scale: how much the instruction and the picture weigh; both 0 is no
                guidance.
            sprint: steps read only a part of what came before.
            callback_on_step_end: see `unimodal.progress.Progress`; it may drop samples.
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
        masks = read_masks(mask_image, groups, self.sizes, mask_feather, single=isinstance(instruction, str))
        scales = settings.text_guidance_scale, settings.image_guidance_scale
        negatives = read_negatives(
            negative_prompt,
            len(instructions),
            standard=LEFT_OUT,
            guided=scales not in ((0, 0), (1, 0)),
            how="a text_guidance_scale other than 1, or an image_guidance_scale above 0",
        )
        if (height is None) != (width is None):
            raise ValueError(f"height, width: got {height} and {width}, give both or none")
        size = None if height is None or width is None else self.sizes.grid(height, width)
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [[self._encode(self.sizes.for_editing(picture), stats) for picture in group] for group in groups]
        for group, mask in zip(grids, masks, strict=True):
            if mask is not None and size not in (None, group[0].shape):
                raise ValueError(
                    f"height, width: got {height} and {width}, with a mask_image the result has the size of the picture"
                )
        grids, masks, instructions, negatives = (
            repeated(values, num_images_per_prompt) for values in (grids, masks, instructions, negatives)
        )
        sizes = [size or (group[0].shape[0], group[0].shape[1]) for group in grids]
        generators = read_generators(generator, len(grids))
        branches = [
            self.sequences.editing(group, text, *target, negative=negative)
            for group, text, target, negative in zip(grids, instructions, sizes, negatives, strict=True)
        ]
        for branch, (rows, columns) in zip(branches, sizes, strict=True):
            self._check_room([branch.prompt], rows * columns, "images, instruction, height, width")
        kept = [None if mask is None else mask.given(group[0]) for group, mask in zip(grids, masks, strict=True)]
        with self._progress(callback_on_step_end, len(branches)) as progress:
            steps = self._writer(sprint).picture_steps(
                branches,
                sizes,
                settings.sampling(),
                edit_guidance(*scales, settings.guidance_rescale),
                given=kept,
                generators=generators,
                stats=stats,
                wanted=progress.wanted,
            )
            codes, masks = progress.stayed(drained(steps, progress.writing)), progress.stayed(masks)
            drawn = self._draw(codes, drawing, progress.stayed(generators), stats, progress)
        edited = [image if mask is None else mask.paste(image) for image, mask in zip(drawn, masks, strict=True)]
        return EditOutput(images=edited, codes=codes, dropped=progress.dropped, stats=stats)
