"""`Pipeline`: understand, generate, edit and interleave with one checkpoint.

The jobs are thin: read the arguments, build the prompt, let the writer write, draw the codes.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unimodal.arguments import (
    Generators,
    Pictures,
    read_generators,
    read_groups,
    read_texts,
    repeated,
)
from unimodal.components import Components
from unimodal.diffusion.guidance import edit_guidance, prompt_guidance
from unimodal.picture_input import PictureSizes, read_pictures
from unimodal.progress import Progress, StepCallback
from unimodal.results import EditOutput, GenerateOutput, InterleaveOutput, Stats, UnderstandOutput
from unimodal.sequence import SequenceBuilder
from unimodal.settings import DecoderSettings
from unimodal.writer import Interleaver, Writer
from unimodal_tokenizers.images import to_images, to_pixels


class Pipeline(Components):
    """One checkpoint, loaded, and what it can do; its parts are those of `Components`."""

    _bar_options: Mapping[str, Any] = MappingProxyType({})

    @property
    def sequences(self) -> SequenceBuilder:
        return SequenceBuilder(self.text_tokenizer, self.vocab)

    @property
    def writer(self) -> Writer:
        return Writer(self.backbone, self.sequences)

    @property
    def sizes(self) -> PictureSizes:
        return PictureSizes(self.settings.images, self.patch_size, self.vocab.size_ids)

    def set_progress_bar_config(self, **options: Any) -> None:
        """Options of the tqdm bars; `disable=True` shows none."""
        self._bar_options = options

    def understand(
        self,
        images: Pictures | Sequence[Pictures],
        question: str | Sequence[str],
        *,
        prompt_style: str | None = None,
        num_inference_steps: int | None = None,
        gen_length: int | None = None,
        block_length: int | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        eos_early_stop: bool | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> UnderstandOutput:
        """Answers a question about one or several pictures, or a list of questions each about its own.

        Args:
            images: PIL images or paths; with a list of questions one entry, a picture or several, for each.
            prompt_style: `chat`, or `bare` as the first published script had it.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.understand.but(
            prompt_style=prompt_style,
            num_inference_steps=num_inference_steps,
            gen_length=gen_length,
            block_length=block_length,
            threshold=threshold,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            eos_early_stop=eos_early_stop,
        )
        questions = read_texts("question", question)
        groups = read_groups(images, question, questions)
        generators = read_generators(generator, len(questions))
        stats = Stats()
        grids = [[self._encode(picture, stats) for picture in self.sizes.for_understanding(group)] for group in groups]
        prompts = [
            self.sequences.understanding(group, text, settings.prompt_style)
            for group, text in zip(grids, questions, strict=True)
        ]
        with self._progress(callback_on_step_end) as progress:
            tokens = self.writer.text(
                prompts,
                settings.sampling(),
                settings.gen_length,
                generators=generators,
                stats=stats,
                watch=progress.writing,
            )
        texts = [self.sequences.plain_text(row.tolist()).strip() for row in tokens]
        return UnderstandOutput(texts=texts, tokens=[row.cpu() for row in tokens], stats=stats)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        thinking: bool = False,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_images_per_prompt: int = 1,
        block_length: int | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        thinking_num_inference_steps: int | None = None,
        thinking_gen_length: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> GenerateOutput:
        """Draws pictures from a prompt or a list of prompts.

        Args:
            height, width: pixels of the picture, on the grid of the checkpoint.
            thinking: the model first writes what it will draw.
            num_inference_steps: per block of codes.
            guidance_scale: 1 is none.
            decoder: `turbo` or `normal`, with `decoder_steps`.
            generator: one per picture, or one from which each picture's own is seeded.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.generate.but(
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            block_length=block_length,
            threshold=threshold,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        thinks = self.settings.thinking.but(
            "thinking_",
            num_inference_steps=thinking_num_inference_steps,
            gen_length=thinking_gen_length,
            temperature=temperature,
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

    def edit(
        self,
        images: Pictures | Sequence[Pictures],
        instruction: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        num_images_per_prompt: int = 1,
        block_length: int | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        generator: Generators = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> EditOutput:
        """Changes a picture by an instruction, or makes one from several; lists of instructions each with their own
        pictures.

        Args:
            images: the picture, or several references; PIL images or paths.
            height, width: pixels of the result; None is the size of the first picture, fitted to the model.
            text_guidance_scale, image_guidance_scale: how much the instruction and the picture weigh; both 0 is no
                guidance.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.edit.but(
            num_inference_steps=num_inference_steps,
            text_guidance_scale=text_guidance_scale,
            image_guidance_scale=image_guidance_scale,
            guidance_rescale=guidance_rescale,
            block_length=block_length,
            threshold=threshold,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
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

    def interleave(
        self,
        prompt: str,
        images: Pictures = (),
        *,
        num_inference_steps: int | None = None,
        image_num_inference_steps: int | None = None,
        gen_length: int | None = None,
        block_length: int | None = None,
        threshold: float | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        text_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        max_images: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: StepCallback | None = None,
    ) -> InterleaveOutput:
        """Answers with text and pictures in turn.

        Args:
            images: pictures that the prompt speaks of.
            gen_length: tokens of each text at most.
            guidance_scale: of the first picture; 0 takes `text_guidance_scale`.
            max_images: the answer ends with this many.

        Raises:
            ValueError: an argument that cannot be used; the message names it.
        """
        settings = self.settings.interleave.but(
            num_inference_steps=num_inference_steps,
            image_num_inference_steps=image_num_inference_steps,
            gen_length=gen_length,
            block_length=block_length,
            threshold=threshold,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance_scale=guidance_scale,
            text_guidance_scale=text_guidance_scale,
            image_guidance_scale=image_guidance_scale,
            guidance_rescale=guidance_rescale,
            max_images=max_images,
        )
        texts = read_texts("prompt", prompt)
        if len(texts) > 1:
            raise ValueError(f"prompt: got {len(texts)} texts, an interleaved answer has one")
        references = read_pictures(images)
        [source] = read_generators(generator, 1)
        drawing = self._drawing(decoder, decoder_steps)
        stats = Stats()
        grids = [self._encode(picture, stats) for picture in self.sizes.for_understanding(references)]
        segments: list[str | Image.Image] = []
        drawn: list[Tensor] = []
        with self._progress(callback_on_step_end) as progress:
            answer = Interleaver(
                self.writer, texts[0], grids, settings, generator=source, stats=stats, watch=progress.writing
            )
            for segment in answer:
                if isinstance(segment, str):
                    segments.append(segment)
                else:
                    drawn.append(segment)
                    segments += self._draw([segment], drawing, [source], stats, progress)
        return InterleaveOutput(segments=segments, codes=drawn, finish_reason=answer.finish_reason, stats=stats)

    def _progress(self, callback: StepCallback | None) -> Progress:
        return Progress(self, self.vocab, callback, self._bar_options)

    def _drawing(self, decoder: str | None, decoder_steps: int | None) -> DecoderSettings:
        """How codes become pixels; loads what that needs, so that it cannot fail after the codes are made."""
        drawing = self.settings.decoder.choose(decoder, decoder_steps)
        self.decoder.transformer(drawing.decoder)
        return drawing

    def _encode(self, picture: Image.Image, stats: Stats) -> Tensor:
        """Codes [H, W] of a picture of the right size."""
        started = time.perf_counter()
        tokenizer = self.image_tokenizer
        weight = tokenizer.codebook
        codes = tokenizer.encode(to_pixels([picture]).to(weight.device, weight.dtype))[0].cpu()
        stats.add_seconds("encode", time.perf_counter() - started)
        return codes

    def _draw(
        self,
        codes: Sequence[Tensor],
        drawing: DecoderSettings,
        generators: Sequence[torch.Generator],
        stats: Stats,
        progress: Progress,
    ) -> list[Image.Image]:
        """Pictures from codes, those of one size together."""
        started = time.perf_counter()
        images: dict[int, Image.Image] = {}
        for size in dict.fromkeys(grid.shape for grid in codes):
            places = [place for place, grid in enumerate(codes) if grid.shape == size]
            pixels = self.decoder.decode(
                torch.stack([codes[place] for place in places]),
                decoder=drawing.decoder,
                num_steps=drawing.steps,
                generator=[generators[place] for place in places],
                guidance_scale=drawing.guidance_scale,
                callback=progress.decoding,
            )
            images |= dict(zip(places, to_images(pixels), strict=True))
        stats.add_seconds("decode", time.perf_counter() - started)
        return [images[place] for place in range(len(codes))]


def load(
    name_or_path: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    **hub: Any,
) -> Pipeline:
    """Short for `Pipeline.from_pretrained`; `hub` are its other arguments."""
    return Pipeline.from_pretrained(name_or_path, device=device, dtype=dtype, **hub)
