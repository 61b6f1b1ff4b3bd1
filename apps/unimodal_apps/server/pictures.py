"""Pictures that come in and go out: bytes, `data:` addresses, sizes and formats."""

import base64
import binascii
import io
from typing import Any, Literal

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from unimodal_apps.server.errors import ApiError

# What browsers and cameras make; the many rarer readers of the library stay closed.
READABLE = ("PNG", "JPEG", "WEBP", "GIF", "BMP")

OutputFormat = Literal["png", "jpeg", "webp"]


def read_bytes(content: bytes, name: str, max_pixels: int) -> Image.Image:
    """The picture in an encoded file, upright, its first frame.

    Args:
        name: what messages call it.
        max_pixels: width times height at most; looked at before anything is decoded.

    Raises:
        ApiError: 400 for what is no picture, 413 for one that is too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=READABLE) as image:
            if image.width * image.height > max_pixels:
                raise ApiError(
                    413,
                    f"{name}: got {image.width} x {image.height} pixels, allowed are {max_pixels} altogether",
                    param=name,
                    code="picture_too_large",
                )
            image.load()
            return ImageOps.exif_transpose(image)
    except ApiError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass
    except Exception:
        # Damaged files make the library raise nearly anything.
        pass
    raise ApiError(
        400,
        f"{name}: got {len(content)} bytes that are no picture in {', '.join(READABLE)}",
        param=name,
        code="invalid_picture",
    )


def white_where_transparent(mask: Image.Image) -> Image.Image:
    """A mask of OpenAI's kind, which is transparent where the picture may change, as the pipeline's, which is white
    there. One without transparency is taken as it is.
    """
    if mask.has_transparency_data:
        opacity = mask.convert("RGBA").getchannel("A")
        if opacity.getextrema() != (255, 255):
            return ImageChops.invert(opacity)
    return mask.convert("RGB")


def data_bytes(url: str, name: str) -> bytes:
    """The content of a base64 `data:` address.

    Raises:
        ApiError: 400 for another encoding, or broken base64.
    """
    head, _, content = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise ApiError(
            400,
            f"{name}: a data: address must be base64, as in data:image/png;base64,iVBORw0...",
            param=name,
            code="invalid_picture",
        )
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{name}: what follows base64, is not base64", param=name, code="invalid_picture") from None


def encoded(image: Image.Image, output_format: OutputFormat, quality: int | None = None) -> bytes:
    """The picture as a file in memory; `quality`, 0 to 100, is that of JPEG and WebP."""
    target = io.BytesIO()
    options: dict[str, Any] = {} if output_format == "png" else {"quality": 95 if quality is None else quality}
    image.convert("RGB").save(target, format=output_format.upper(), **options)
    return target.getvalue()


def data_url(content: bytes, output_format: OutputFormat = "png") -> str:
    return f"data:image/{output_format};base64,{base64.b64encode(content).decode()}"
