"""`POST /v1/images/generations` and `POST /v1/images/edits`."""

import asyncio
import base64
import secrets
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from PIL import Image
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from unimodal_apps.server import tasks
from unimodal_apps.server.errors import ApiError, declared, invalid
from unimodal_apps.server.image_requests import (
    DrawnPicture,
    EditFields,
    GenerationRequest,
    PictureRequest,
    PicturesResponse,
    Sampling,
    stated,
)
from unimodal_apps.server.limits import Limits
from unimodal_apps.server.pictures import encoded, read_bytes, white_where_transparent
from unimodal_apps.server.served import ServedPictures
from unimodal_apps.server.waiting import answered

router = APIRouter(prefix="/v1/images", tags=["images"])

SAMPLING = tuple(Sampling.model_fields)
DRAWING = (*SAMPLING, "negative_prompt", "guidance_rescale", "decoder", "decoder_steps")
EDITING = "text_guidance_scale", "image_guidance_scale", "mask_feather"
THINKING = "thinking_num_inference_steps", "thinking_gen_length"
FILES = "image", "image[]", "mask"
SERVED = "/v1/images/files"
ERRORS = declared(400, 401, 404, 408, 413, 429, 500, 503, 504)


@router.post("/generations", response_model_exclude_none=True, responses=ERRORS, summary="Draw pictures")
async def generations(request: Request, body: Annotated[GenerationRequest, Body()]) -> PicturesResponse:
    """Draws `n` pictures of a prompt."""
    limits: Limits = request.app.state.limits
    options = limits.checked(body) | stated(body, *DRAWING, "guidance_scale", "thinking", *THINKING)
    for name in THINKING:
        if name in options and not body.thinking:
            raise ApiError(400, f"{name}: got {options[name]}, it needs thinking", param=name, code="invalid_value")
    if body.thinking_gen_length is not None:
        limits.check_most("thinking_gen_length", body.thinking_gen_length, limits.options.max_text_tokens)
    task = tasks.Generate(seed=_seed(body), prompt=body.prompt, count=body.n, options=options)
    return await _response(request, body, task.seed, await answered(request, task))


@router.post(
    "/edits",
    response_model_exclude_none=True,
    responses=ERRORS,
    summary="Change pictures",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {}}}}},
)
async def edits(request: Request) -> PicturesResponse:
    """Changes a picture by a prompt, or makes one from several; a mask says where."""
    limits: Limits = request.app.state.limits
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "body: it must be a form of type multipart/form-data", param="body")
    async with request.form(max_part_size=limits.options.max_body) as form:
        body = _fields(form)
        options = limits.checked(body) | stated(body, *DRAWING, *EDITING)
        pictures = [await _picture(file, "image", limits) for file in _files(form, "image", "image[]")]
        masks = [await _picture(file, "mask", limits) for file in _files(form, "mask")]
    limits.check_count("image", len(pictures))
    if len(masks) > 1:
        raise ApiError(400, f"mask: got {len(masks)}, allowed is one", param="mask")
    task = tasks.Edit(
        seed=_seed(body),
        pictures=pictures,
        instruction=body.prompt,
        mask=white_where_transparent(masks[0]) if masks else None,
        count=body.n,
        options=options,
    )
    return await _response(request, body, task.seed, await answered(request, task))


@router.get(
    "/files/{name}",
    response_class=Response,
    responses={200: {"description": "The picture.", "content": {"image/png": {}, "image/jpeg": {}, "image/webp": {}}}}
    | declared(404),
    summary="A drawn picture",
)
async def files(request: Request, name: str) -> Response:
    """A picture that `response_format: url` pointed to, while it is kept."""
    served: ServedPictures = request.app.state.served
    kept = served.find(name)
    if kept is None:
        raise ApiError(404, "there is no such picture, or no longer", param="name", code="not_found")
    return Response(kept.content, media_type=f"image/{kept.output_format}")


def _seed(body: PictureRequest) -> int:
    return secrets.randbelow(2**31) if body.seed is None else body.seed


def _fields(form: FormData) -> EditFields:
    """The fields of a form that are no files."""
    values: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in FILES:
            continue
        if name in values:
            raise ApiError(400, f"{name}: it is given more than once", param=name)
        if isinstance(value, UploadFile):
            raise ApiError(400, f"{name}: it is a file, allowed as files are {', '.join(FILES)}", param=name)
        values[name] = value
    try:
        # A form has nothing but text, so numbers are read from it.
        return EditFields.model_validate(values, strict=False)
    except ValidationError as error:
        raise invalid(error) from None


def _files(form: FormData, *names: str) -> list[UploadFile]:
    found = [value for name in names for value in form.getlist(name)]
    for value in found:
        if not isinstance(value, UploadFile):
            raise ApiError(400, f"{names[0]}: got a text, it must be a file", param=names[0])
    return [value for value in found if isinstance(value, UploadFile)]


async def _picture(file: UploadFile, name: str, limits: Limits) -> Image.Image:
    return await asyncio.to_thread(read_bytes, await file.read(), name, limits.options.max_picture_pixels)


async def _response(request: Request, body: PictureRequest, seed: int, drawn: tasks.Pictures) -> PicturesResponse:
    files = await asyncio.to_thread(
        lambda: [encoded(image, body.output_format, body.output_compression) for image in drawn.images]
    )
    thoughts = drawn.thinking or [None] * len(files)
    served: ServedPictures = request.app.state.served
    data = []
    for content, thought in zip(files, thoughts, strict=True):
        if body.response_format == "url":
            address = f"{str(request.base_url).rstrip('/')}{SERVED}/{served.keep(content, body.output_format)}"
            data.append(DrawnPicture(url=address, revised_prompt=thought))
        else:
            data.append(DrawnPicture(b64_json=base64.b64encode(content).decode(), revised_prompt=thought))
    width, height = drawn.images[0].size
    return PicturesResponse(
        created=int(time.time()), data=data, output_format=body.output_format, size=f"{width}x{height}", seed=seed
    )
