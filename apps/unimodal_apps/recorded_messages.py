"""Conversations in records: messages as JSON can hold them, with pictures told apart by how they come back.

One that the model drew is there as its codes, which is all that it counts by. One that was shown is named by its place
among the sources of the record: `{"type": "image", "source": 0}`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from unimodal_apps.metadata import Input
from unimodal_apps.requests import Source

Message = Mapping[str, Any]


def record_messages(messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[Input]]:
    """Messages as `Pipeline.chat` takes them, with paths or a `Source` for pictures, and the pictures shown.

    Raises:
        ValueError: a picture is no longer in its place.
    """
    sources: list[Input] = []

    def recorded(part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return dict(part)
        codes, image = part.get("codes"), part.get("image")
        if codes is not None:
            return {"type": "image", "codes": codes.tolist() if isinstance(codes, Tensor) else codes}
        source = image if isinstance(image, Source) else Source.read(str(image), "messages", keep=False)
        sources.append(Input(**source.as_mapping()))
        return {"type": "image", "source": len(sources) - 1}

    return _each_part(messages, recorded), sources


def load_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as `Pipeline.chat` takes them, with the picture in place of each `Source`."""

    def loaded(part: Mapping[str, Any]) -> dict[str, Any]:
        image = part.get("image")
        return {**part, "image": image.load()} if isinstance(image, Source) else dict(part)

    return _each_part(messages, loaded)


def recall_messages(messages: Sequence[Message], sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The messages again, as `Pipeline.chat` takes them.

    Raises:
        ValueError: something that is no recorded message, or a picture that is not among the sources.
    """

    def recalled(part: Mapping[str, Any]) -> dict[str, Any]:
        if "source" not in part:
            return dict(part)
        place = part["source"]
        if type(place) is not int or not 0 <= place < len(sources):
            raise ValueError(f"messages: there is no source {place!r}, the record has {len(sources)}")
        return {"type": "image", "image": sources[place].load()}

    return _each_part(messages, recalled)


def _each_part(
    messages: Sequence[Message], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    changed = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            if not all(isinstance(part, Mapping) for part in content):
                raise ValueError("messages: a part of a message is no object")
            content = [change(part) for part in content]
        changed.append({**message, "content": content})
    return changed
