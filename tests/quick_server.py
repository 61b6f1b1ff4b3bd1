"""What the tests of the server share: a reference checkpoint with settings that take little time, and pictures."""

import base64
import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import unimodal
from unimodal.pipeline import Pipeline
from unimodal.settings import Settings

GOLDEN = Path(__file__).parent / "golden" / "uni_a"
QUICK: dict[str, Any] = {"num_inference_steps": 2, "decoder_steps": 2}


def quick_pipeline() -> Pipeline:
    pipe = unimodal.load(GOLDEN, device="cpu")
    pipe.set_progress_bar_config(disable=True)
    values = Settings.preset("tiny").model_dump()
    values["understand"] |= {"gen_length": 24, "num_inference_steps": 4}
    values["thinking"] |= {"gen_length": 8, "num_inference_steps": 2}
    values["generate"] |= {"num_inference_steps": 2}
    values["edit"] |= {"num_inference_steps": 2}
    values["interleave"] |= {"gen_length": 16, "num_inference_steps": 4, "image_num_inference_steps": 2}
    values["interleave"] |= {"max_image_tokens": 80, "max_images": 1}
    values["decoder"] |= {"turbo_steps": 2, "normal_steps": 2}
    pipe.settings = Settings.model_validate(values)
    return pipe


def gradient() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    image.save(target, format=kind)
    return target.getvalue()


def data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(encoded(image)).decode()}"


def opened(content: str | bytes) -> Image.Image:
    """The picture in a file, in base64, or in a data: address."""
    if isinstance(content, str):
        content = base64.b64decode(content.split("base64,")[-1])
    return Image.open(io.BytesIO(content)).convert("RGB")


def asking(image: Image.Image, text: str = "what is this?") -> list[Any]:
    """A conversation of one question about a picture."""
    return showing(data_url(image), text)


def showing(url: str, text: str = "what is this?") -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]
