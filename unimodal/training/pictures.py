"""Pictures of the world as training samples, each a function of (seed, step, sample index)."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimodal.world.render import render
from unimodal.world.sampling import Split, sample_scene
from unimodal.world.scene import Level, Scene


def sample_random(seed: int, step: int, index: int, stream: str = "train") -> random.Random:
    """The random source of one sample; `stream` separates training from evaluation."""
    return random.Random(f"{stream}/{seed}/{step}/{index}")


def torch_generator(source: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(source.getrandbits(63))


def sample_picture(level: Level, source: random.Random, split: Split = "train") -> tuple[Scene, Image.Image]:
    scene = sample_scene(level, source, split)
    return scene, render(scene, level)


def to_tensor(images: list[Image.Image]) -> Tensor:
    """PIL pictures of one size → pixels [B, 3, Y, X] in [-1, 1]."""
    stack = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def save_rows(path: str, rows: list[Tensor]) -> None:
    """Writes rows of pixels [B, 3, Y, X] in [-1, 1] as one PNG, one row under the other."""
    grid = torch.cat([torch.cat(list(row.float().clamp(-1, 1).cpu()), dim=2) for row in rows], dim=1)
    Image.fromarray(((grid + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(path)
