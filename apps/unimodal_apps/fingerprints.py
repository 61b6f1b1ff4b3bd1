"""What a picture or a checkpoint is, in 64 hexadecimal digits."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

from unimodal.checkpoint import PARTS

WHOLE_FILE, SAMPLE, SAMPLES = 64 << 20, 64 << 10, 256
"""Larger files are told apart by their size, this many bytes at this many places, and both ends."""


def picture_sha256(image: Image.Image) -> str:
    """The SHA-256 of a picture's size and pixels, upright; how its file is compressed does not count."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("P", "PA"):
        # Pixels of these are places in a palette.
        upright = upright.convert("RGBA")
    digest = hashlib.sha256(f"{upright.mode} {upright.width} {upright.height} ".encode())
    digest.update(upright.tobytes())
    return digest.hexdigest()


def checkpoint_sha256(folder: str | Path) -> str:
    """The SHA-256 over the names and contents of a checkpoint's files: weights, configurations, tokenizers.

    Files of more than `WHOLE_FILE` bytes are sampled, so that 60 GB take no minute: training changes every
    tensor, and a download that was cut short has another size.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    patterns = [pattern for part in PARTS.values() for pattern in part]
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            for start, length in _places(path.stat().st_size):
                file.seek(start, os.SEEK_SET)
                digest.update(file.read(length))
    return digest.hexdigest()


def _places(size: int) -> Iterable[tuple[int, int]]:
    """(start, length) of what is read of a file."""
    if size <= WHOLE_FILE:
        return [(0, size)]
    return [((size - SAMPLE) * sample // SAMPLES, SAMPLE) for sample in range(SAMPLES + 1)]
