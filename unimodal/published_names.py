"""The names that scripts for the published LLaDA2.0-Uni code import, so that they run after a changed import:

    from unimodal.published_names import AutoModelForCausalLM, AutoTokenizer, ImageTokenizer, decode_vq_tokens
    from unimodal.published_names import generate_crop_size_list, smart_resize_images, var_center_crop

Arguments that only load remote code or pick a kernel there are taken and have no effect; everything else has the
published meaning and defaults. Nothing of it is needed otherwise: `unimodal.load` gives all of it in one object.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from unimodal import checkpoint
from unimodal.backbone import BackboneConfig
from unimodal.components import IMAGE_TOKENIZER, pick_device, pick_dtype
from unimodal.picture_input import DRAWN_SCALE, Picture, read_pictures
from unimodal.pipeline import Pipeline
from unimodal_decoders.pixel_decoder import PixelDecoder, Variant
from unimodal_tokenizers import siglip_vq
from unimodal_tokenizers.images import (
    MAX_SIDE_RATIO,
    ONE_PICTURE_PIXELS,
    SEVERAL_PICTURES_PIXELS,
    Size,
    center_crop,
    closest_size,
    editing_sizes,
    fit_for_understanding,
    to_images,
    to_pixels,
    to_rgb,
)
from unimodal_tokenizers.text import TextTokenizer

DECODERS: dict[str, Variant] = {"normal": "normal", "decoder-turbo": "turbo"}
FACTOR = 32
"""Pixels that the sides of a picture are multiples of, in the published scripts."""


class PublishedModel(Pipeline):
    """A pipeline that is handled like the model object of those scripts."""

    @property
    def config(self) -> BackboneConfig:
        return self.backbone.config

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self.text_tokenizer.library

    @tokenizer.setter
    def tokenizer(self, value: PreTrainedTokenizerFast) -> None:
        self.text_tokenizer = TextTokenizer(value)

    def eval(self) -> Self:
        self.backbone.eval()
        return self

    def to(self, *place: Any, **named: Any) -> Self:
        """Moves the backbone, or changes its precision, as `torch.nn.Module.to`."""
        self.backbone.to(*place, **named)
        return self


class AutoModelForCausalLM:
    """Loads a `PublishedModel`."""

    @staticmethod
    def from_pretrained(
        model_path: str | Path,
        *,
        device_map: str | torch.device | Mapping[str, Any] | None = None,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool | None = None,
        low_cpu_mem_usage: bool | None = None,
        attn_implementation: str | None = None,
    ) -> PublishedModel:
        """A checkpoint by name, folder or Hub id.

        Args:
            device_map: a device, "auto", or a mapping with the key "" (all on one device); None is the CPU.
            torch_dtype, dtype: None or "auto" as `unimodal.load`.
            trust_remote_code, low_cpu_mem_usage, attn_implementation: without effect; no remote code is run, weights
                are read one file at a time, and attention takes the best kernel there is.

        Raises:
            ValueError: as `unimodal.load`.
        """
        if isinstance(device_map, Mapping) and set(device_map) != {""}:
            raise ValueError(f"device_map: got {dict(device_map)}, the model goes to one device, under the key ''")
        asked = device_map[""] if isinstance(device_map, Mapping) else device_map
        place = "cpu" if asked is None else None if asked == "auto" else asked
        kind = torch_dtype if dtype is None else dtype
        return PublishedModel.from_pretrained(
            model_path,
            device=f"cuda:{place}" if isinstance(place, int) else place,
            dtype=None if kind == "auto" else kind,
            revision=revision,
            token=token,
            local_files_only=local_files_only,
        )


class AutoTokenizer:
    """Loads the text tokenizer of a checkpoint."""

    @staticmethod
    def from_pretrained(
        model_path: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool | None = None,
    ) -> PreTrainedTokenizerFast:
        """The `transformers` tokenizer; `trust_remote_code` is without effect."""
        folder = checkpoint.resolve(model_path, revision=revision, token=token, local_files_only=local_files_only)
        return TextTokenizer.from_pretrained(folder).library


class ImageTokenizer:
    """Pictures of a fitting size to codes.

    Args:
        model_path: the root of the checkpoint.
        dtype: None is bfloat16 on a GPU and float32 elsewhere.
    """

    def __init__(
        self,
        model_path: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
    ):
        place = pick_device(device)
        folder = checkpoint.resolve(model_path) / IMAGE_TOKENIZER
        self._tokenizer = siglip_vq.ImageTokenizer.from_pretrained(folder, place, pick_dtype(dtype, place)).eval()

    @torch.no_grad()
    def encode_with_info(self, image: Image.Image) -> dict[str, Any]:
        """`token_ids`, the codes without offset, row by row; `grid_thw`, (1, h, w) in codes.

        Raises:
            ValueError: a size that is no whole number of codes.
        """
        weight = self._tokenizer.codebook
        [codes] = self._tokenizer.encode(to_pixels([image]).to(weight.device, weight.dtype))
        return {"token_ids": codes.flatten().tolist(), "grid_thw": (1, *codes.shape)}


def decode_vq_tokens(
    token_ids: Sequence[int],
    h: int,
    w: int,
    model_path: str | Path,
    device: torch.device | str | None = None,
    resolution_multiplier: int = DRAWN_SCALE,
    num_steps: int = 50,
    decode_mode: str = "normal",
    dtype: torch.dtype | str | None = None,
    generator: torch.Generator | None = None,
) -> Image.Image:
    """The picture of h × w codes, given without offset, row by row.

    Args:
        num_steps: the same for both decoders; `decoder-turbo` is made for 8.
        decode_mode: `normal` or `decoder-turbo`.
        generator: the source of noise; None is torch's own, which `torch.manual_seed` sets.

    Raises:
        ValueError: an argument that cannot be used.
    """
    if decode_mode not in DECODERS:
        raise ValueError(f"decode_mode: got {decode_mode!r}, it must be {' or '.join(DECODERS)}")
    codes = torch.as_tensor(token_ids).flatten()
    if len(codes) != h * w:
        raise ValueError(f"token_ids: got {len(codes)}, a picture of {h} × {w} codes has h * w")
    place = pick_device(device)
    decoder = PixelDecoder.from_pretrained(checkpoint.resolve(model_path), place, pick_dtype(dtype, place))
    pixels = decoder.decode(
        codes.reshape(1, h, w),
        decoder=DECODERS[decode_mode],
        num_steps=num_steps,
        generator=generator,
        resolution_multiplier=resolution_multiplier,
    )
    return to_images(pixels)[0]


def smart_resize_images(images: Picture | Sequence[Picture]) -> list[Image.Image]:
    """Pictures or paths, in sizes to be understood; several together are made smaller."""
    pictures = read_pictures(images)
    fewest, most = ONE_PICTURE_PIXELS if len(pictures) == 1 else SEVERAL_PICTURES_PIXELS
    return [fit_for_understanding(picture, factor=FACTOR, min_pixels=fewest, max_pixels=most) for picture in pictures]


def generate_crop_size_list(num_patches: int, patch_size: int, max_ratio: float = MAX_SIDE_RATIO) -> list[Size]:
    """(width, height) of the pictures of at most `num_patches` squares of `patch_size` pixels."""
    return editing_sizes(num_patches, patch_size, max_ratio)


def var_center_crop(pil_image: Image.Image, crop_size_list: Sequence[Size]) -> Image.Image:
    """The centre of a picture in the size of nearest proportions, without scaling."""
    image = to_rgb(pil_image)
    return center_crop(image, closest_size(*image.size, crop_size_list))
