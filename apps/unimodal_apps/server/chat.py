"""`POST /v1/chat/completions`."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import StreamingResponse
from PIL import Image
from pydantic import BaseModel

from unimodal.results import ChatPicture, ChatText
from unimodal_apps.server.chat_requests import (
    AnsweredMessage,
    AnsweredPart,
    AnsweredPicture,
    ChatChunk,
    ChatCompletion,
    ChatOptions,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    PicturePart,
    TextPart,
    Usage,
)
from unimodal_apps.server.conversations import Answer, Ask, Chat
from unimodal_apps.server.errors import ApiError, ClientGone, declared, error_response
from unimodal_apps.server.fetching import picture_bytes
from unimodal_apps.server.image_requests import Sampling, stated
from unimodal_apps.server.limits import Limits
from unimodal_apps.server.pictures import data_url, encoded, read_bytes
from unimodal_apps.server.tasks import Task
from unimodal_apps.server.waiting import Place, answered

router = APIRouter(prefix="/v1/chat", tags=["chat"])

# What an answer of text alone has options for; with any other the pipeline says what is missing.
ASKING = {*Sampling.model_fields, "gen_length", "eos_early_stop"}
ERRORS = declared(400, 401, 404, 408, 413, 429, 500, 503, 504)
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAM = {
    200: {
        "description": "The answer; with `stream` as events, each a `ChatChunk`, and `[DONE]` at last.",
        "content": {"text/event-stream": {"schema": EVENT}},
    }
}


@router.post(
    "/completions",
    response_model=ChatCompletion,
    response_model_exclude_none=True,
    responses=STREAM | ERRORS,
    summary="Answer a conversation",
)
async def completions(request: Request, body: Annotated[ChatRequest, Body()]) -> Any:
    """Answers the last message of a conversation with text, or with text and pictures in order.

    A stream sends text as soon as no later step can change it, and each picture whole.
    """
    limits: Limits = request.app.state.limits
    seed = secrets.randbelow(2**31) if body.seed is None else body.seed
    task = await _task(body, seed, limits)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": limits.options.model,
        "seed": seed,
    }
    if body.stream:
        return await _streamed(request, body, task, head)
    answer: Answer = await answered(request, task)
    content = await asyncio.to_thread(_content, answer.segments, "image" in task.modalities)
    choice = Choice(message=AnsweredMessage(content=content), finish_reason=answer.ended)
    return ChatCompletion(choices=[choice], usage=_usage(answer), **head)


async def _task(body: ChatRequest, seed: int, limits: Limits) -> Chat | Ask:
    """The conversation, its options checked and its pictures read."""
    limits.check_model(body.model)
    options = _options(body, limits)
    parts = [part for message in body.messages if not isinstance(message.content, str) for part in message.content]
    limits.check_count("messages", sum(isinstance(part, PicturePart) for part in parts), at_least=0)
    messages = [
        {
            # The newer name of the same role.
            "role": "system" if message.role == "developer" else message.role,
            "content": message.content
            if isinstance(message.content, str)
            else [await _part(part, limits) for part in message.content],
        }
        for message in body.messages
    ]
    modalities = body.modalities or ["text"]
    if not body.stream and set(modalities) == {"text"} and set(options) <= ASKING:
        return Ask(seed=seed, options=options, messages=messages)
    return Chat(seed=seed, options=options, messages=messages, modalities=modalities)


def _options(body: ChatRequest, limits: Limits) -> dict[str, Any]:
    """Arguments of the pipeline; those at the top count more than those in `extra_body`."""
    options: dict[str, Any] = {}
    for place in (body.extra_body, body):
        if place is not None:
            limits.check_steps(place)
            options |= stated(place, *ChatOptions.model_fields)
    lengths = {"max_tokens": body.max_tokens, "max_completion_tokens": body.max_completion_tokens}
    for name, length in lengths.items():
        if length is not None:
            limits.check_most(name, length, limits.options.max_text_tokens)
            options["gen_length"] = length
    for name, most in (("max_images", limits.options.max_images), ("max_image_tokens", limits.max_codes)):
        if name in options:
            limits.check_most(name, options[name], most)
    return options


async def _part(part: TextPart | PicturePart, limits: Limits) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    content = await picture_bytes(part.image_url.url, "image_url", limits.options)
    picture = await asyncio.to_thread(read_bytes, content, "image_url", limits.options.max_picture_pixels)
    return {"type": "image", "image": picture}


async def _streamed(request: Request, body: ChatRequest, task: Task, head: dict[str, Any]) -> StreamingResponse:
    """The answer as events. What goes wrong before the first of them still has its status."""
    place = Place(request, task)
    parts = place.ticket.parts()
    try:
        first = await anext(parts, None)
    except BaseException:
        place.close()
        raise
    usage = body.stream_options is not None and body.stream_options.include_usage
    return StreamingResponse(
        _events(place, first, parts, head, usage),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _events(
    place: Place, first: Any, parts: AsyncIterator[Any], head: dict[str, Any], with_usage: bool
) -> AsyncIterator[str]:
    try:
        yield _event(_chunk(head, Delta(role="assistant", content="")))
        part = first
        while part is not None:
            yield _event(_chunk(head, Delta(content=await _piece(part))))
            part = await anext(parts, None)
        answer: Answer = await place.ticket.answer()
        yield _event(_chunk(head, Delta(), answer.ended))
        if with_usage:
            yield _event(ChatChunk(choices=[], usage=_usage(answer), **head))
        yield "data: [DONE]\n\n"
    except ClientGone:
        pass
    except Exception as error:
        known = error if isinstance(error, ApiError) else None
        failed = error_response(
            known.status_code if known else 500, known.detail if known else "something went wrong in the server"
        )
        yield f"data: {bytes(failed.body).decode()}\n\n"
    finally:
        place.close()


def _chunk(head: dict[str, Any], delta: Delta, ended: Any = None) -> ChatChunk:
    return ChatChunk(choices=[ChunkChoice(delta=delta, finish_reason=ended)], **head)


def _event(chunk: BaseModel) -> str:
    return f"data: {chunk.model_dump_json(exclude_none=True)}\n\n"


async def _piece(part: ChatText | ChatPicture) -> str | list[AnsweredPart]:
    if isinstance(part, ChatText):
        return part.text
    return [await asyncio.to_thread(_answered_part, part.image)]


def _content(segments: Sequence[str | Image.Image], in_parts: bool) -> str | list[AnsweredPart]:
    if in_parts:
        return [_answered_part(segment) for segment in segments]
    return "\n".join(segment for segment in segments if isinstance(segment, str))


def _answered_part(segment: str | Image.Image) -> AnsweredPart:
    if isinstance(segment, str):
        return AnsweredPart(type="text", text=segment)
    return AnsweredPart(type="image_url", image_url=AnsweredPicture(url=data_url(encoded(segment, "png"))))


def _usage(answer: Answer) -> Usage:
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.tokens,
        total_tokens=answer.prompt_tokens + answer.tokens,
    )
