"""What the tests of the server share: its pipeline, and pictures as they are sent."""

import base64
import io
from typing import Any

from PIL import Image
from quick_pipeline import quick_pipeline

from unimodal.pipeline import Pipeline


def served_pipeline() -> Pipeline:
    """Thinks little, and draws one picture in a story."""
    return quick_pipeline(thinking={"gen_length": 8, "num_inference_steps": 2}, interleave={"max_images": 1})


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
