"""A checkpoint's parts, loaded when they are needed, and written back in the published layout.

A text-only checkpoint, in the layout of LLaDA2.0 and LLaDA2.1, is a backbone and a text tokenizer.
"""

from pathlib import Path
from typing import Self

import psutil
import torch

from unimodal import checkpoint
from unimodal.backbone import BackboneConfig, MaskedDiffusionTransformer
from unimodal.settings import Settings
from unimodal.vocab import UnifiedVocab
from unimodal_configs.json_files import read_json
from unimodal_decoders.pixel_decoder import PixelDecoder
from unimodal_tokenizers.siglip_vq import ImageTokenizer
from unimodal_tokenizers.text import TextTokenizer

IMAGE_TOKENIZER = "image_tokenizer"
PICTURE_PARTS = (IMAGE_TOKENIZER, "decoder", "vae")


class Components:
    """The parts of one checkpoint, attributes that can be exchanged.

    Args:
        backbone: the transformer over text and codes.
        text_tokenizer, vocab: text to ids, and the ids of everything else.
        image_tokenizer, decoder: pictures to codes and back. Where they are not given they are read from `folder`
            when they are first needed.
        settings: how each job is sampled unless a call says otherwise; None is as published.
    """

    def __init__(
        self,
        *,
        backbone: MaskedDiffusionTransformer,
        text_tokenizer: TextTokenizer,
        vocab: UnifiedVocab,
        image_tokenizer: ImageTokenizer | None = None,
        decoder: PixelDecoder | None = None,
        settings: Settings | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.text_tokenizer = text_tokenizer
        self.vocab = vocab
        self.settings = settings or Settings.published()
        self.folder = None if folder is None else Path(folder)
        self._image_tokenizer = image_tokenizer
        self._decoder = decoder

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads an embedded checkpoint by name, a folder, or a repository `owner/name` of the Hugging Face Hub.

        Args:
            device: None takes the GPU if there is one.
            dtype: a torch dtype or its name; None is bfloat16 on a CUDA device and float32 elsewhere.
            torch_dtype: another name for `dtype`.
            revision, token, local_files_only: for the Hub.

        Raises:
            ValueError: an unknown name, device or dtype; files that are missing, truncated or do not fit.
        """
        place = pick_device(device)
        precision = pick_dtype(torch_dtype if dtype is None else dtype, place)
        folder = checkpoint.resolve(name_or_path, revision=revision, token=token, local_files_only=local_files_only)
        settings = Settings.of_checkpoint(folder)
        text_tokenizer = TextTokenizer.from_pretrained(folder)
        backbone = checkpoint.load_backbone(folder, device=place, dtype=precision)
        pack_if_there_is_room(backbone)
        return cls(
            backbone=backbone,
            text_tokenizer=text_tokenizer,
            vocab=read_vocab(folder, backbone.config, text_tokenizer),
            settings=settings,
            folder=folder,
        )

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.embedding.weight.dtype

    @property
    def image_tokenizer(self) -> ImageTokenizer:
        if self._image_tokenizer is None:
            folder = self._stored(IMAGE_TOKENIZER) / IMAGE_TOKENIZER
            self._image_tokenizer = ImageTokenizer.from_pretrained(folder, device=self.device, dtype=self.dtype).eval()
        return self._image_tokenizer

    @image_tokenizer.setter
    def image_tokenizer(self, value: ImageTokenizer) -> None:
        self._image_tokenizer = value

    @property
    def decoder(self) -> PixelDecoder:
        if self._decoder is None:
            self._decoder = PixelDecoder.from_pretrained(self._stored("vae"), device=self.device, dtype=self.dtype)
        return self._decoder

    @decoder.setter
    def decoder(self, value: PixelDecoder) -> None:
        self._decoder = value

    @property
    def patch_size(self) -> int:
        """Pixels per code along each side of a picture that is tokenised."""
        if self._image_tokenizer is not None:
            return self._image_tokenizer.patch_size
        return read_patch_size(self._stored(IMAGE_TOKENIZER))

    def release(self) -> None:
        """Forgets the parts for pictures that can be read from `folder` again, to free their memory."""
        for part, attribute in ((IMAGE_TOKENIZER, "_image_tokenizer"), ("vae", "_decoder")):
            if self.folder is not None and (self.folder / part).is_dir():
                setattr(self, attribute, None)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the whole checkpoint in the published layout, and its settings into `generation_config.json`."""
        folder = Path(folder)
        checkpoint.save_backbone(self.backbone, folder)
        self.text_tokenizer.save_pretrained(folder)
        if not self.vocab.is_text_only:
            self.image_tokenizer.save_pretrained(folder / IMAGE_TOKENIZER)
            self.decoder.save_pretrained(folder)
        self.settings.save(folder)

    def _stored(self, part: str) -> Path:
        """The checkpoint's folder, if it has the part."""
        if self.folder is None:
            raise ValueError(f"{part}: the pipeline made from parts has none, and this job needs it")
        if not (self.folder / part).is_dir():
            lacking = ", ".join(f"{name}/" for name in PICTURE_PARTS if not (self.folder / name).is_dir())
            where = f"{self.folder}, a text-only checkpoint," if self.vocab.is_text_only else str(self.folder)
            raise ValueError(
                f"{part}: the pipeline of {where} has none, and this job needs it: the folder lacks {lacking}"
            )
        return self.folder


def read_vocab(folder: str | Path, config: BackboneConfig, text_tokenizer: TextTokenizer) -> UnifiedVocab:
    """The vocabulary of a checkpoint; there are as many codes as its image tokenizer has.

    Where the vocabulary has no ids from `image_token_offset` on, the checkpoint is text-only.
    """
    if config.vocab_size <= config.image_token_offset:
        return UnifiedVocab.text_only(
            text_tokenizer, vocab_size=config.vocab_size, mask_id=config.mask_token_id, eos_id=config.eos_token_id
        )
    return UnifiedVocab.from_tokenizer(
        text_tokenizer,
        vocab_size=config.vocab_size,
        image_token_offset=config.image_token_offset,
        codebook_size=_image_tokenizer_value(folder, "vq_config", "num_embeddings"),
    )


def read_patch_size(folder: str | Path) -> int:
    """Pixels per code along each side, without loading the image tokenizer.

    Raises:
        ValueError: the image tokenizer's configuration does not state it.
    """
    size = _image_tokenizer_value(folder, "vision_config", "patch_size")
    if size is None:
        raise ValueError(f"patch_size: {Path(folder) / IMAGE_TOKENIZER / 'config.json'} does not state it")
    return size


def pack_if_there_is_room(backbone: MaskedDiffusionTransformer) -> None:
    """Packs the weights (`pack_weights`); on a CPU, where that is a second copy of nearly all of them, if this takes no
    more than half of what is free.
    """
    size = sum(weight.nbytes for weight in backbone.parameters())
    if backbone.device.type != "cpu" or 2 * size <= free_memory(backbone.device):
        backbone.pack_weights()


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def pick_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, or the best there is: CUDA, Apple's, the CPU.

    Raises:
        ValueError: no such device, or it is not there.
    """
    if device is None:
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device: {str(device)!r} cannot be used here ({str(error).splitlines()[0]})") from error
    return place


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, by itself or by name; without one bfloat16 on CUDA, float32 elsewhere.

    Raises:
        ValueError: not a floating-point dtype of torch.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    named = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    allowed = torch.float32, torch.bfloat16, torch.float16, torch.float64
    if named not in allowed:
        names = ", ".join(str(kind).removeprefix("torch.") for kind in allowed)
        raise ValueError(f"dtype: got {dtype!r}, allowed are {names}")
    return named


def _image_tokenizer_value(folder: str | Path, section: str, name: str) -> int | None:
    path = Path(folder) / IMAGE_TOKENIZER / "config.json"
    if not path.is_file():
        return None
    config = read_json(path)
    return config.get(section, config).get(name)
