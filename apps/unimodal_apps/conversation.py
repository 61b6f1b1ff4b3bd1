"""A conversation on the command line: turns go in as text and pictures, answers come out as they are settled."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from unimodal import Pipeline
from unimodal.arguments import read_texts
from unimodal.messages import read_messages
from unimodal.output_files import check_writable, file_name, save_picture, save_text
from unimodal.results import ChatEnd, ChatPicture, ChatText
from unimodal_apps.metadata import Maker, Record
from unimodal_apps.options import Run
from unimodal_apps.recorded_messages import record_messages
from unimodal_apps.requests import Request, Source
from unimodal_apps.saving import record_of
from unimodal_apps.session import open_pipeline, pick_seed, seeded, stats_as_mapping

SHOW = "/image"

Message = dict[str, Any]


class Conversation:
    """The messages so far, in the form that `Pipeline.chat` takes, with paths in place of pictures.

    Args:
        history: a JSON file of messages to go on with and to write back after every turn; it may not exist yet.
        output: the folder for pictures of answers; None is `outputs`, or the folder of the history.
        draws: whether answers may hold pictures.
        arguments: others that the pipeline's method takes.
        seed: of the first turn; each later one adds 1.

    Raises:
        ValueError: a history that is none, or a place that cannot be written.
    """

    def __init__(
        self,
        history: str | None,
        output: str | None,
        *,
        system: str | None,
        draws: bool,
        arguments: Mapping[str, Any],
        seed: int | None,
    ):
        self._history = None if history is None else check_writable(history)
        beside = Path("outputs") if self._history is None else self._history.parent
        self._folder = beside if output is None else Path(output).expanduser()
        check_writable(self._folder / "picture.png")
        self._draws, self._arguments, self._seed = draws, dict(arguments), pick_seed(seed)
        self.messages: list[Message] = [] if self._history is None else _read_history(self._history)
        if system is not None and self.messages:
            raise ValueError("--system: the conversation of --history has begun without it")
        if system is not None:
            self.messages.append({"role": "system", "content": read_texts("--system", system)[0]})
        self._sources: list[Source] = []
        self._turns: list[dict[str, Any]] = []

    def show(self, path: str) -> None:
        """Shows a picture with the next turn.

        Raises:
            ValueError: there is none.
        """
        self._sources.append(Source.read(path, "--image"))

    def open(self, run: Run) -> None:
        """Loads the model."""
        self._pipe: Pipeline = open_pipeline(run.model, run.device, run.dtype)
        self._maker = Maker.of(self._pipe, run.model)

    def say(self, words: str, *, aloud: bool) -> None:
        """Takes a turn and its answer, printed `aloud` as it is made.

        Raises:
            ValueError: an argument that cannot be used, or a conversation too long; it is as before then.
        """
        read_texts("message", words)
        sources = tuple(self._sources)
        pictures = [{"type": "image", "image": str(source.path)} for source in sources]
        asked = {"role": "user", "content": [*pictures, {"type": "text", "text": words}]}
        seed = self._seed + sum(message["role"] == "user" for message in self.messages)
        request = Request(task="chat", text=words, seed=seed, sources=sources, arguments=self._arguments)
        events = self._pipe.stream_chat(
            [*self.messages, asked],
            modalities=("text", "image") if self._draws else ("text",),
            generator=seeded(seed),
            **self._arguments,
        )
        segment, places, end, record = 0, [], None, None
        for event in events:
            if isinstance(event, ChatText):
                if aloud:
                    typer.echo(("\n" if event.segment != segment else "") + event.text, nl=False)
                segment = event.segment
            elif isinstance(event, ChatPicture):
                record = record or self._record(request, [*self.messages, asked])
                path = self._save(event.image, record, len(places))
                places.append(str(path))
                if aloud:
                    typer.echo(("\n" if event.segment != segment else "") + str(path), nl=False)
                segment = event.segment
            elif isinstance(event, ChatEnd):
                end = event.output
        assert end is not None
        if aloud:
            typer.echo("")
        # An answer that says nothing is no message to go on with.
        self.messages += [asked, *([_answer(end.message, places)] if end.segments else [])]
        self._turns.append({"seed": seed, "finish_reason": end.finish_reason, "stats": stats_as_mapping(end.stats)})
        self._sources = []
        if self._history is not None:
            save_text(json.dumps(_moved(self.messages, Path(), self._history.parent), indent=1), self._history)

    def as_result(self) -> dict[str, Any]:
        return self._maker.model_dump() | {
            "task": "chat",
            "seed": self._seed,
            "arguments": self._arguments,
            "messages": self.messages,
            "turns": self._turns,
        }

    def _record(self, request: Request, messages: Sequence[Message]) -> Record:
        """The record of a turn's first picture."""
        recorded, sources = record_messages(messages)
        made = {"messages": recorded, "sources": sources}
        return record_of(request, self._maker, self._pipe).model_copy(update=made)

    def _save(self, image: Image.Image, record: Record, index: int) -> Path:
        path = self._folder / f"{file_name(record.prompt, record.seed)}-{index + 1}.png"
        save_picture(image, path, record.model_copy(update={"index": index}).facts())
        return path


def listen(talk: Conversation, *, aloud: bool) -> None:
    """Takes the turns of the standard input, a line each; at a terminal they are asked for, and errors end nothing."""
    asks = sys.stdin.isatty() and sys.stdout.isatty()
    while line := _asked() if asks else sys.stdin.readline():
        words = line.strip()
        if not words and asks:
            return
        try:
            if words.split()[:1] == [SHOW]:
                talk.show(words.removeprefix(SHOW).strip())
            elif words:
                talk.say(words, aloud=aloud)
        except ValueError as error:
            if not asks:
                raise
            typer.echo(str(error), err=True)


def _asked() -> str:
    """A line that ends in a line break, nothing at the end of the input."""
    try:
        return input("> ") + "\n"
    except EOFError:
        return ""


def _answer(message: Mapping[str, Any], places: list[str]) -> Message:
    """The answer with the paths of its pictures, and their codes so that they need not be encoded."""
    if isinstance(message["content"], str):
        return dict(message)
    paths = iter(places)
    parts = [
        part if part["type"] == "text" else {"type": "image", "image": next(paths), "codes": part["codes"].tolist()}
        for part in message["content"]
    ]
    return {"role": "assistant", "content": parts}


def _read_history(path: Path) -> list[Message]:
    if not path.is_file():
        return []
    try:
        messages = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--history: {str(path)!r} is not JSON ({error})") from None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"--history: {str(path)!r} must hold a list of messages")
    moved = _moved(messages, path.parent, Path())
    # Whoever goes on speaks next, so that the history alone is no question yet.
    read_messages([*moved, {"role": "user", "content": "?"}])
    return moved


def _moved(messages: list[Message], source: Path, target: Path) -> list[Message]:
    """The same messages, paths of pictures relative to another folder."""

    def moved(part: Any) -> Any:
        if not isinstance(part, dict) or not isinstance(part.get("image"), str):
            return part
        return {**part, "image": os.path.relpath(source / part["image"], target)}

    return [
        {**message, "content": [moved(part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]
