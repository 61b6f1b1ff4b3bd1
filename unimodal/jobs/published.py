"""The methods of the published LLaDA2.0-Uni code by their names, with its arguments, defaults and results.

They take and give tokens: a picture is a flat list of ids with the image offset going in, and a list of codes without
it coming out (arXiv 2604.20796 and the scripts beside it). All else is as in the other jobs, which are to be preferred.
"""

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from unimodal.arguments import read_generators, read_texts
from unimodal.diffusion.guidance import edit_guidance
from unimodal.diffusion.sprint import SprintOptions
from unimodal.jobs.generate import Generate
from unimodal.jobs.options import spelled_out
from unimodal.picture_input import DRAWN_SCALE
from unimodal.sequence import LEFT_OUT
from unimodal.settings import Settings
from unimodal.writer import Writer, drained

MODES = ("normal", "thinking")


class PublishedSampling(TypedDict, total=False):
    """Options of all three methods; None, or left out, is the published default.

    Args:
        threshold: 0.95.
        temperature: 0.
        top_k, top_p: no limits.
        use_sprint: prunes what is read, and unmasks adaptively; False.
        keep_ratio: 0.7.
        cache_warmup_steps: 2.
        confidence_alpha: 0.5.
        image_keep_ratio, text_keep_ratio: `keep_ratio`.
        generator: draws tokens above temperature 0.
    """

    threshold: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    use_sprint: bool | None
    keep_ratio: float | None
    cache_warmup_steps: int | None
    confidence_alpha: float | None
    image_keep_ratio: float | None
    text_keep_ratio: float | None
    generator: torch.Generator | None


SPRINT_NAMES = ("keep_ratio", "cache_warmup_steps", "confidence_alpha", "image_keep_ratio", "text_keep_ratio")


class Published(Generate):
    @spelled_out
    def generate_image(
        self,
        prompt: str,
        image_h: int = 1024,
        image_w: int = 1024,
        steps: int = 16,
        block_length: int = 32,
        gen_length: int | None = None,
        cfg_scale: float = 4.0,
        mode: str = "normal",
        thinking_steps: int = 32,
        thinking_gen_length: int = 4096,
        **options: Unpack[PublishedSampling],
    ) -> dict[str, Any]:
        """The codes of a picture for a prompt.

        Args:
            image_h, image_w: pixels of the picture after decoding, rounded down to whole codes.
            gen_length: the published number of 1088 cuts larger pictures off, so None is as many as the picture has;
                fewer are refused.
            mode: `normal` or `thinking`.

        Returns:
            `token_ids`, a list of codes; `h` and `w`, codes along each side; in the thinking mode `thinking`, a text.

        Raises:
            ValueError: an argument that cannot be used.
        """
        if mode not in MODES:
            raise ValueError(f"mode: got {mode!r}, it must be {' or '.join(MODES)}")
        prompts = _single("prompt", prompt)
        size = self._side("image_h", image_h), self._side("image_w", image_w)
        _check_length(gen_length, size)
        writer, source, own = self._published(options)
        settings = Settings.published().generate.but(
            num_inference_steps=steps, block_length=block_length, guidance_scale=cfg_scale, **own
        )
        thinks = Settings.published().thinking.but(
            "thinking_", num_inference_steps=thinking_steps, gen_length=thinking_gen_length
        )
        with self._progress(None) as progress:
            [codes], thoughts = self._picture_codes(
                prompts,
                [LEFT_OUT],
                size,
                settings,
                thinks if mode == "thinking" else None,
                writer,
                progress.writing,
                generators=[source],
            )
        return _result(codes) if thoughts is None else {**_result(codes), "thinking": thoughts[0]}

    @spelled_out
    def understand_image(
        self,
        image_tokens: Sequence[int],
        h: int,
        w: int,
        question: str = "",
        steps: int = 32,
        block_length: int = 32,
        gen_length: int = 2048,
        **options: Unpack[PublishedSampling],
    ) -> str:
        """The answer to a question about a picture of h × w codes, given as ids with the image offset.

        Raises:
            ValueError: an argument that cannot be used.
        """
        writer, source, own = self._published(options)
        settings = Settings.published().understand.but(
            num_inference_steps=steps, block_length=block_length, gen_length=gen_length, **own
        )
        prompt = self.sequences.understanding([self._grid(image_tokens, h, w)], question, settings.prompt_style)
        self._check_room([prompt], settings.gen_length, "image_tokens, question, gen_length")
        with self._progress(None) as progress:
            writing = writer.text_steps([prompt], settings.sampling(), settings.gen_length, generators=[source])
            [tokens] = drained(writing, progress.writing)
        return self.sequences.plain_text(tokens.tolist()).strip()

    @spelled_out
    def edit_image(
        self,
        image_tokens: Sequence[int],
        h: int,
        w: int,
        instruction: str,
        steps: int = 8,
        block_length: int = 32,
        cfg_text_scale: float = 4.0,
        cfg_image_scale: float = 0.0,
        gen_length: int | None = None,
        **options: Unpack[PublishedSampling],
    ) -> dict[str, Any]:
        """The codes of a picture of h × w codes, given as ids with the image offset, after an instruction.

        Args:
            cfg_text_scale, cfg_image_scale: both 0 is no guidance.
            gen_length: None is h·w; fewer are refused.

        Returns:
            `token_ids`, `h` and `w`, as `generate_image`.

        Raises:
            ValueError: an argument that cannot be used.
        """
        [text] = _single("instruction", instruction)
        source_codes = self._grid(image_tokens, h, w)
        _check_length(gen_length, (h, w))
        writer, source, own = self._published(options)
        settings = Settings.published().edit.but(
            num_inference_steps=steps,
            block_length=block_length,
            text_guidance_scale=cfg_text_scale,
            image_guidance_scale=cfg_image_scale,
            **own,
        )
        branches = self.sequences.editing([source_codes], text, h, w)
        self._check_room([branches.prompt], h * w, "image_tokens, instruction")
        guidance = edit_guidance(cfg_text_scale, cfg_image_scale, settings.guidance_rescale)
        with self._progress(None) as progress:
            writing = writer.picture_steps([branches], [(h, w)], settings.sampling(), guidance, generators=[source])
            [codes] = drained(writing, progress.writing)
        return _result(codes)

    def _published(self, options: PublishedSampling) -> tuple[Writer, torch.Generator, dict[str, Any]]:
        """The writer, the source of randomness, and what is left to the settings."""
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        [source] = read_generators(given.pop("generator", None), 1)
        uses = given.pop("use_sprint", False)
        pruning = {name: given.pop(name) for name in SPRINT_NAMES if name in given}
        if not uses:
            if pruning:
                raise ValueError(f"{next(iter(pruning))}: got {next(iter(pruning.values()))}, it needs use_sprint=True")
            return self.writer, source, given
        return self._writer(SprintOptions.from_published(**pruning)), source, {"policy": "adaptive", **given}

    def _side(self, name: str, pixels: int) -> int:
        """Codes along a side of a picture that is drawn with so many pixels."""
        side = pixels // DRAWN_SCALE // self.patch_size
        if side not in self.vocab.size_ids:
            raise ValueError(f"{name}: got {pixels} pixels, {side} codes have no token in this vocabulary")
        return side

    def _grid(self, image_tokens: Sequence[int], height: int, width: int) -> Tensor:
        tokens = torch.as_tensor(image_tokens).flatten()
        if len(tokens) != height * width:
            raise ValueError(f"image_tokens: got {len(tokens)}, a picture of {height} × {width} codes has h * w")
        return self.sequences.grid(tokens, height, width)


def _single(name: str, text: str) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"{name}: got {text!r}, it must be a text")
    return read_texts(name, text)


def _check_length(gen_length: int | None, size: tuple[int, int]) -> None:
    if gen_length is not None and gen_length < size[0] * size[1]:
        raise ValueError(f"gen_length: got {gen_length}, it cuts off a picture of {size[0]} × {size[1]} codes")


def _result(codes: Tensor) -> dict[str, Any]:
    return {"token_ids": codes.flatten().tolist(), "h": codes.shape[0], "w": codes.shape[1]}
