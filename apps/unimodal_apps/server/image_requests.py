"""What the endpoints for pictures take and give; names as in OpenAI's API, then those of the pipeline."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from unimodal.diffusion.options import Span
from unimodal.diffusion.sprint import SprintOptions
from unimodal_apps.server.pictures import OutputFormat

Steps = Annotated[int, Field(ge=1, description="Steps per block.")]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

SEEDS = 2**53


def from_json(value: Any) -> Any:
    """An object that came as text, as all fields of a form do."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("it must be a JSON object") from None


class Strict(BaseModel):
    """A request: unknown arguments are refused, so that none is silently without effect."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, values: Any) -> Any:
        """In JSON 2.0 is a whole number, too."""
        if not isinstance(values, dict):
            return values
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in values.items()
        }


class Sprint(Strict):
    """Steps that read only a part of what came before (SPRINT); what is left out is the paper's."""

    text_keep_ratio: Share | None = Field(default=None, description="Share of the text that is read.")
    image_keep_ratio: Share | None = Field(default=None, description="Share of the picture codes that are read.")
    confidence_alpha: Share | None = Field(default=None, description="1 ranks by keys alone, 0 by confidence alone.")
    cache_warmup_steps: int | None = Field(default=None, ge=1, description="Steps of a block that read everything.")

    def options(self) -> SprintOptions:
        return SprintOptions(**self.model_dump(exclude_none=True))


class Sampling(Strict):
    """How blocks are filled; left out it is as the checkpoint says, and what a policy has no use for is refused."""

    preset: str | None = Field(default=None, description="What is stated beside it counts more.")
    policy: str | None = Field(default=None, description="Which positions a step fills.")
    num_inference_steps: Steps | None = None
    block_length: int | None = Field(default=None, ge=1, le=1024, description="Positions that are filled together.")
    threshold: Share | None = Field(default=None, description="A token surer than this is settled at once.")
    temperature: float | None = Field(default=None, ge=0, le=10, description="0 takes the likeliest token.")
    top_k: int | None = Field(default=None, ge=1, le=2**20)
    top_p: float | None = Field(default=None, gt=0, le=1)
    span: Span | None = Field(default=None, description="What is filled together: blocks, the answer, or all.")
    minimal_topk: int | None = Field(default=None, ge=1, description="Tokens that a step settles at least.")
    remasking: str | None = Field(default=None, description="The score by which positions take turns.")
    reveal_length: int | None = Field(default=None, ge=1, description="Positions that are filled in one piece.")
    choice_temperature: float | None = Field(default=None, ge=0, le=100, description="Noise on the score.")
    editing_threshold: Share | None = Field(default=None, description="A token surer than this replaces another.")
    max_post_steps: int | None = Field(default=None, ge=0, description="Steps of a full block that is edited.")
    sprint: Sprint | None = None


class PictureRequest(Sampling):
    """What drawing and editing have in common."""

    model: str | None = Field(default=None, description="The name that GET /v1/models lists.")
    prompt: str = Field(min_length=1, pattern=r"\S", max_length=32_000)
    n: int = Field(default=1, ge=1, description="Pictures to draw.")
    size: str = Field(default="auto", description="WIDTHxHEIGHT in pixels, or auto.")
    response_format: Literal["b64_json", "url"] = Field(
        default="b64_json", description="The file itself, or an address of this server that has it for a while."
    )
    output_format: OutputFormat = "png"
    output_compression: int | None = Field(default=None, ge=0, le=100, description="Quality of JPEG and WebP.")
    seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Repeats a result; drawn if left out.")
    user: str | None = Field(default=None, description="Taken for the sake of clients that send it.")
    negative_prompt: str | None = Field(default=None, pattern=r"\S", max_length=32_000, description="What to avoid.")
    guidance_rescale: Share | None = None
    decoder: Literal["turbo", "normal"] | None = None
    decoder_steps: int | None = Field(default=None, ge=2, description="Steps of the pixel decoder.")


class GenerationRequest(PictureRequest):
    guidance_scale: Scale | None = Field(default=None, description="How much the prompt weighs; 1 is no guidance.")
    thinking: bool = Field(default=False, description="The model first writes what it will draw.")
    thinking_num_inference_steps: Steps | None = None
    thinking_gen_length: int | None = Field(default=None, ge=1, description="Tokens of the thoughts at most.")


class EditFields(PictureRequest):
    """The fields of a form beside its files."""

    text_guidance_scale: Scale | None = Field(default=None, description="How much the prompt weighs.")
    image_guidance_scale: Scale | None = Field(default=None, description="How much the pictures weigh.")
    mask_feather: int | None = Field(default=None, ge=0, le=1024, description="Pixels over which the mask fades out.")
    sprint: Annotated[Sprint | None, BeforeValidator(from_json)] = None


class DrawnPicture(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = Field(default=None, description="What the model thought before it drew.")


class PicturesResponse(BaseModel):
    """`seed` is the one that was used: sent again, it makes the same pictures."""

    created: int
    data: list[DrawnPicture]
    output_format: OutputFormat
    size: str
    seed: int


def stated(request: BaseModel, *names: str) -> dict[str, Any]:
    """The arguments of the pipeline that a request states."""
    values = {name: getattr(request, name) for name in names}
    return {
        name: value.options() if isinstance(value, Sprint) else value
        for name, value in values.items()
        if value is not None
    }
