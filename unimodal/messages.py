"""Conversations as the ecosystem writes them: a list of messages, each with a role and a content.

    [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What is this?"}]},
     {"role": "assistant", "content": "A red circle."},
     {"role": "user", "content": "Is it large?"}]

The content is a text or a list of parts. A picture is a PIL image or the path of a file; one that the model drew also
has its `codes`, int [H, W], and then is not encoded again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unimodal.picture_input import read_picture
from unimodal.sequence import Role

ROLES = ("system", "user", "assistant")
KEYS = {"text": {"type", "text"}, "image": {"type", "image", "codes"}}


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one side says: texts, pictures, and pictures as codes [H, W], in order."""

    role: Role
    parts: list[str | Image.Image | Tensor]


def read_messages(messages: Any) -> tuple[str | None, list[Message]]:
    """The text of the system message, None if there is none, and the other messages.

    Raises:
        ValueError: something that is no conversation, with the place of what is wrong: unknown roles, keys or types,
            a system message that is not the first or has pictures, an empty message, a conversation that does not
            begin and end with the user.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"messages: got {_short(messages)}, it must be a list of messages, at least one")
    system: str | None = None
    read: list[Message] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role, content = _fields(message, place)
        parts = _parts(content, f"{place}.content")
        if role == "system":
            if number > 0 or not all(isinstance(part, str) for part in parts):
                raise ValueError(f"{place}: a system message is the first of all and has text alone")
            system = "\n".join(str(part) for part in parts)
        else:
            read.append(Message(role=role, parts=parts))
    if not read or read[0].role != "user" or read[-1].role != "user":
        raise ValueError(
            f"messages: got the roles {[message.role for message in read]} after the system's, "
            "the first and the last must be the user's"
        )
    return system, read


def _fields(message: Any, place: str) -> tuple[Any, Any]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise ValueError(f"{place}: got {_short(message)}, it must be a mapping with the keys 'role' and 'content'")
    if message["role"] not in ROLES:
        raise ValueError(f"{place}.role: got {message['role']!r}, allowed are {', '.join(ROLES)}")
    return message["role"], message["content"]


def _parts(content: Any, place: str) -> list[str | Image.Image | Tensor]:
    if isinstance(content, str):
        parts: list[str | Image.Image | Tensor] = [content]
    elif isinstance(content, Sequence):
        parts = [_part(part, f"{place}[{number}]") for number, part in enumerate(content)]
    else:
        raise ValueError(f"{place}: got {_short(content)}, it must be a text or a list of parts")
    if not any(not isinstance(part, str) or part.strip() for part in parts):
        raise ValueError(f"{place}: it is empty, at least a text or a picture is needed")
    return [part for part in parts if not isinstance(part, str) or part.strip()]


def _part(part: Any, place: str) -> str | Image.Image | Tensor:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in KEYS:
        raise ValueError(f"{place}: got {_short(part)}, it must be a mapping whose 'type' is 'text' or 'image'")
    if unknown := sorted(str(key) for key in set(part) - KEYS[kind]):
        raise ValueError(f"{place}: there is no key {unknown[0]!r} in a part of type {kind!r}")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{place}.text: got {_short(part.get('text'))}, it must be a text")
        return part["text"]
    if part.get("codes") is not None:
        return _codes(part["codes"], f"{place}.codes")
    return read_picture(part.get("image"), f"{place}.image")


def _codes(codes: Any, place: str) -> Tensor:
    try:
        grid = torch.as_tensor(codes)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{place}: got {_short(codes)}, it must be a grid of whole numbers") from None
    if grid.ndim != 2 or grid.is_floating_point() or grid.is_complex() or not grid.numel():
        raise ValueError(f"{place}: got {grid.dtype} {list(grid.shape)}, it must be whole numbers [H, W]")
    return grid.long().cpu()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
