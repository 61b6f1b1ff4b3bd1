"""What one server allows: the options of its operator, and the sizes that its checkpoint can draw."""

from typing import Any

from pydantic import BaseModel

from unimodal import Pipeline
from unimodal.picture_input import DRAWN_SCALE
from unimodal_apps.server.errors import ApiError
from unimodal_apps.server.options import ServerOptions

STEPS = (
    *("num_inference_steps", "image_num_inference_steps", "thinking_num_inference_steps", "max_post_steps"),
    "decoder_steps",
)


class Limits:
    """Checks requests against the options of a server and the sizes of its checkpoint.

    Attributes:
        sizes: WIDTHxHEIGHT of every picture that may be asked for.
        max_codes: codes of the largest picture.
    """

    def __init__(self, pipe: Pipeline, options: ServerOptions) -> None:
        self.options = options
        pixels = DRAWN_SCALE * pipe.patch_size
        sides = sorted(side * pixels for side in pipe.vocab.size_ids)
        self.max_codes = max(1, options.max_drawn_pixels // pixels**2)
        self.sizes = {
            f"{width}x{height}": (width, height)
            for height in sides
            for width in sides
            if width * height <= options.max_drawn_pixels
        }
        self.max_positions = pipe.backbone.config.max_position_embeddings

    def checked(self, body: Any) -> dict[str, int]:
        """Height and width as arguments of the pipeline, after everything else of a request was checked.

        Raises:
            ApiError: 400 for more than is allowed, 404 for another model.
        """
        self.check_model(body.model)
        self.check_steps(body)
        self.check_most("n", body.n, self.options.max_images)
        if body.size == "auto":
            return {}
        if body.size not in self.sizes:
            raise ApiError(
                400,
                f"size: got {body.size!r}, allowed are auto, {', '.join(self.sizes)}",
                param="size",
                code="invalid_size",
            )
        width, height = self.sizes[body.size]
        return {"height": height, "width": width}

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.options.model:
            raise ApiError(
                404,
                f"model: there is no model {name[:80]!r} here, there is {self.options.model!r}",
                param="model",
                code="model_not_found",
            )

    def check_steps(self, body: BaseModel) -> None:
        for name in STEPS:
            steps = getattr(body, name, None)
            if steps is not None:
                self.check_most(name, steps, self.options.max_steps)

    def check_count(self, name: str, count: int, at_least: int = 1) -> None:
        """Of pictures that came in."""
        if count < at_least:
            raise ApiError(400, f"{name}: it is missing", param=name, code="missing_parameter")
        self.check_most(name, count, self.options.max_pictures, " pictures")

    def check_most(self, name: str, got: int, most: int, what: str = "") -> None:
        if got > most:
            raise ApiError(
                400, f"{name}: got {got}{what}, allowed are at most {most}", param=name, code="invalid_value"
            )
