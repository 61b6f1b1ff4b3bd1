"""What the endpoints for pictures take and give; names as in OpenAI's API, then those of the pipeline."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from unimodal_apps.server.pictures import OutputFormat

Steps = Annotated[int, Field(ge=1, description="Steps per block.")]
Scale = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

SEEDS = 2**53


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


class Sampling(Strict):
    """How blocks are filled; left out it is as the checkpoint says."""

    num_inference_steps: Steps | None = None
    block_length: int | None = Field(default=None, ge=1, le=1024, description="Positions that are filled together.")
    threshold: Share | None = Field(default=None, description="A token surer than this is settled at once.")
    temperature: float | None = Field(default=None, ge=0, le=10, description="0 takes the likeliest token.")
    top_k: int | None = Field(default=None, ge=1, le=2**20)
    top_p: float | None = Field(default=None, gt=0, le=1)


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


class EditFields(PictureRequest):
    """The fields of a form beside its files."""

    text_guidance_scale: Scale | None = Field(default=None, description="How much the prompt weighs.")
    image_guidance_scale: Scale | None = Field(default=None, description="How much the pictures weigh.")
    mask_feather: int | None = Field(default=None, ge=0, le=1024, description="Pixels over which the mask fades out.")


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
    values = request.model_dump(include=set(names))
    return {name: value for name, value in values.items() if value is not None}
