"""What an operator decides: limits, keys and permissions of one server."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

MEBI = 2**20


class ServerOptions(BaseModel):
    """Limits and permissions; the defaults are those of `unimodal serve`.

    Args:
        model: the name that the server gives its model.
        api_key: what clients must send as `Authorization: Bearer KEY`; None lets everyone in.
        allowed_origins: web pages that may call the server from a browser; `*` is all.
        max_batch_size: samples of one pipeline call. 1 makes every answer independent of the load, whatever the
            precision of the weights.
        batch_window: seconds that a request waits for others like it while nothing runs.
        queue_length: requests that may wait.
        request_timeout: seconds from the arrival of a request to its answer.
        body_timeout: seconds between two pieces of a request.
        shutdown_timeout: seconds that running and waiting requests have when the server is stopped.
        max_body: bytes of a request.
        max_picture_pixels: of a picture that comes in.
        max_pictures: pictures in a request.
        max_images: pictures that one request may ask for.
        max_drawn_pixels: of a picture that is drawn.
        max_text_tokens: tokens of a text that one request may ask for.
        max_steps: steps per block, or of the pixel decoder, that one request may ask for.
        fetch_pictures: whether `http:` and `https:` addresses of pictures are followed.
        fetch_timeout: seconds for one picture from afar.
        allow_private_addresses: whether such an address may lie in a private network or on this machine.
        picture_folder: `file:` addresses of pictures below it are read; None refuses all.
        kept_pictures: pictures that stay available under the address that `response_format: url` answers with.
        kept_seconds: how long they do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "tiny"
    api_key: str | None = Field(default=None, min_length=1)
    allowed_origins: tuple[str, ...] = ()
    max_batch_size: int = Field(default=8, ge=1)
    batch_window: float = Field(default=0.01, ge=0, le=1)
    queue_length: int = Field(default=128, ge=1)
    request_timeout: float = Field(default=300, gt=0)
    body_timeout: float = Field(default=30, gt=0)
    shutdown_timeout: float = Field(default=60, gt=0)
    max_body: int = Field(default=64 * MEBI, ge=1024)
    max_picture_pixels: int = Field(default=64_000_000, ge=1)
    max_pictures: int = Field(default=8, ge=1)
    max_images: int = Field(default=8, ge=1)
    max_drawn_pixels: int = Field(default=2_200_000, ge=1)
    max_text_tokens: int = Field(default=4096, ge=1)
    max_steps: int = Field(default=256, ge=2)
    fetch_pictures: bool = True
    fetch_timeout: float = Field(default=10, gt=0)
    allow_private_addresses: bool = False
    picture_folder: Path | None = None
    kept_pictures: int = Field(default=256, ge=1)
    kept_seconds: float = Field(default=3600, gt=0)
