"""What `POST /v1/chat/completions` takes and gives; names as in OpenAI's API, then those of the pipeline."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from unimodal_apps.server.image_requests import SEEDS, Sampling, Scale, Share, Strict

FinishReason = Literal["stop", "length"]
Modality = Literal["text", "image"]


class TextPart(Strict):
    type: Literal["text"]
    text: str = Field(max_length=32_000)


class PictureAddress(Strict):
    url: str = Field(min_length=1, json_schema_extra={"format": "picture-url"})
    detail: Literal["auto"] = "auto"


class PicturePart(Strict):
    type: Literal["image_url"]
    image_url: PictureAddress


Part = Annotated[TextPart | PicturePart, Field(discriminator="type")]


class Message(Strict):
    """One turn; `content` is a text, or texts and pictures in order."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=32_000)] | Annotated[list[Part], Field(min_length=1)]


class StreamOptions(Strict):
    include_usage: bool = False


class ChatOptions(Sampling):
    """How the answer is made; left out it is as the checkpoint says."""

    eos_early_stop: bool | None = None
    image_num_inference_steps: int | None = Field(default=None, ge=1, description="Steps per block of a picture.")
    guidance_scale: Scale | None = None
    text_guidance_scale: Scale | None = None
    image_guidance_scale: Scale | None = None
    guidance_rescale: Share | None = None
    max_images: int | None = Field(default=None, ge=0, description="Pictures in the answer at most.")
    max_image_tokens: int | None = Field(default=None, ge=1, description="The answer ends before a larger picture.")
    decoder: Literal["turbo", "normal"] | None = None
    decoder_steps: int | None = Field(default=None, ge=2, description="Steps of the pixel decoder.")


class ChatRequest(ChatOptions):
    """A conversation up to the turn that is to be answered.

    `modalities` decides what the answer is: `["text"]` a text, `["text", "image"]` a list of parts in order; left out,
    it is a text, or a list of parts if the model drew something.
    """

    model: str | None = Field(default=None, description="The name that GET /v1/models lists.")
    messages: list[Message] = Field(min_length=1, max_length=256)
    modalities: list[Modality] | None = Field(default=None, min_length=1, max_length=2)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, description="Tokens of each text in the answer at most.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Another name for `max_tokens`.")
    seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Repeats an answer; drawn if left out.")
    n: int = Field(default=1, ge=1, le=1)
    user: str | None = Field(default=None, description="Taken for the sake of clients that send it.")
    extra_body: ChatOptions | None = Field(
        default=None, description="Options may also stand in here, where some clients put them."
    )


class AnsweredPicture(BaseModel):
    url: str


class AnsweredPart(BaseModel):
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: AnsweredPicture | None = None


class AnsweredMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str | list[AnsweredPart]


class Choice(BaseModel):
    index: Literal[0] = 0
    message: AnsweredMessage
    finish_reason: FinishReason
    logprobs: None = None


class Usage(BaseModel):
    """Tokens of text and of pictures: those of the conversation and those that were generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """`seed` is the one that was used: sent again, it makes the same answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    seed: int


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | list[AnsweredPart] | None = None


class ChunkChoice(BaseModel):
    index: Literal[0] = 0
    delta: Delta
    finish_reason: FinishReason | None = None


class ChatChunk(BaseModel):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    seed: int
