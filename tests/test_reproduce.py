"""Pictures that say how they were made, and are made again from what they say."""

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Command, call, model, picture, refused, small_edits, written
from PIL import Image
from quick_pipeline import ScriptedWriter, gradient

import unimodal
from unimodal.pipeline import Pipeline
from unimodal_apps import fingerprints, metadata, reproduction
from unimodal_apps.fingerprints import checkpoint_sha256, picture_sha256
from unimodal_apps.metadata import Maker, Record, read_record, save_png
from unimodal_apps.requests import Answer, Request

__all__ = ["call", "model", "picture", "small_edits"]

MAKER = Maker(
    model="tiny",
    model_sha256="0" * 64,
    device="cpu",
    hardware="x86_64",
    dtype="float32",
    threads=1,
    versions={"unimodal": "0.1.0", "torch": "2.9.0"},
)


def test_drawings_are_made_again(call: Command, model: Path, tmp_path: Path) -> None:
    settings = ("--thinking", "--thinking-gen-length", "8", "--temperature", "0.7", "--negative-prompt", "fog")
    drawn = call("generate", "a réd cat", "--model", model, *QUICK, *settings, "--num-images", "2", "-o", "cat.png")
    assert drawn.code == 0, drawn.err
    for name in ("cat-1", "cat-2"):
        found = call("reproduce", f"{name}.png", "-o", "again.png")
        assert found.code == 0 and ": the same picture\n" in found.out, found
        assert Path("again.png").read_bytes() == Path(f"{name}.png").read_bytes()
    shown = call("reproduce", "cat-2.png", "--show").json
    assert shown["prompt"] == "a réd cat" and shown["index"] == 1 and shown["arguments"]["thinking"] is True
    refused(call("reproduce", "cat-1.png", "-o", "cat-1.png"), "--output", "itself")


def test_edits_are_made_again_from_the_pictures_they_came_from(
    call: Command, small_edits: Path, picture: Path, tmp_path: Path
) -> None:
    shutil.copy(picture, "first.png")
    with Image.open(picture) as image:
        mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, image.width // 2, image.height))
        mask.save("mask.png")
    made = call(
        "edit", "first.png", "-i", "blue", "--mask", "mask.png", "--model", small_edits, *QUICK[:4], "-o", "e/b.png"
    )
    assert made.code == 0, made.err
    again = call("reproduce", "e/b.png", "-o", "again.png", "--json").json
    assert again["same"] is True and again["changes"] == [] and again["image"] == "again.png"
    # The whole folder has moved, so that the picture lies where the path says from there.
    (tmp_path / "moved").mkdir()
    for name in ("first.png", "mask.png", "e/b.png"):
        shutil.move(name, tmp_path / "moved")
    before = written(tmp_path)
    refused(call("reproduce", "moved/b.png", "--image", "moved/mask.png"), "picture 1", "changed", "moved/mask.png")
    refused(call("reproduce", "moved/b.png", "--image", "moved/first.png", "--image", "moved/b.png"), "--image", "2")
    (tmp_path / "moved" / "mask.png").rename(tmp_path / "moved" / "hidden.png")
    refused(call("reproduce", "moved/b.png"), "the mask", "missing", "mask.png", "--mask")
    assert call("reproduce", "moved/b.png", "--mask", "moved/hidden.png", "--json").json["same"] is True
    assert set(written(tmp_path)) - set(before) == {"moved/hidden.png", "outputs", "outputs/b-again.png"}


def test_what_has_changed_is_said(call: Command, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("cases_*", "images"))
    call("generate", "a cat", "--model", copy, *QUICK, "--seed", "1", "-o", "cat.png")
    call("generate", "a cat", "--model", copy, *QUICK, "--seed", "1", "-o", "cat.webp")
    with Image.open("cat.png") as image:
        Image.new("RGB", image.size).save("black.png")
        record = read_record("cat.png")
        save_png(Image.new("RGB", image.size), "black.png", record.model_copy(update={"versions": {"torch": "1.0"}}))
    found = call("reproduce", "black.png", "-o", "again.png")
    assert found.code == 1
    assert "of 65536 pixels differ" in found.out and "version of torch: 1.0 then" in found.out
    lossy = call("reproduce", "cat.webp", "--json", "-o", "again.png").json
    assert lossy["same"] is None and Path("again.png").read_bytes() == Path("cat.png").read_bytes()
    (copy / "generation_config.json").write_text("{}", encoding="utf-8")
    same = call("reproduce", "cat.png", "-o", "again.png", "--json").json
    assert same["same"] is True and any("model" in line for line in same["changes"])
    assert call("reproduce", "cat.png", "--model", model, "-o", "again.png").code == 0
    shutil.rmtree(copy)
    refused(call("reproduce", "cat.png", "-o", "again.png"), "--model", "copy")


def test_the_picture_of_a_story_is_taken_from_the_whole_answer(
    call: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = unimodal.load(model, device="cpu")
    record = Record.of_call(Maker.of(pipe, str(model)), pipe, "interleave", prompt="a tale", seed=3, index=1)
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    asked: list[Request] = []

    def perform(_: Any, requests: list[Request]) -> Any:
        asked.extend(requests)
        return [Answer(segments=["once", pictures[0], "then", pictures[1]])], None

    monkeypatch.setattr(reproduction, "perform", perform)
    save_png(pictures[1], "story.png", record)
    found = call("reproduce", "story.png", "-o", "again.png")
    assert found.code == 0 and "the same picture" in found.out
    assert (asked[0].task, asked[0].text, asked[0].seed, asked[0].index) == ("interleave", "a tale", 3, None)
    save_png(pictures[1], "story.png", record.model_copy(update={"index": 2}))
    refused(call("reproduce", "story.png", "-o", "again.png"), "2 pictures", "picture 3")
    save_png(pictures[1], "talk.png", record.model_copy(update={"task": "chat"}))
    refused(call("reproduce", "talk.png", "-o", "again.png"), "messages", "conversation")


def test_pictures_of_a_conversation_are_made_again_from_its_messages(
    call: Command, model: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[ScriptedWriter] = []

    def scripted(pipe: Pipeline) -> ScriptedWriter:
        """Answers with text and two pictures, which it draws by itself."""
        part = [*pipe.sequences.text("once"), *pipe.sequences.header(8, 8)]
        writers.append(ScriptedWriter(pipe, [part, part, [pipe.vocab.eos_id]]))
        return writers[-1]

    monkeypatch.setattr(Pipeline, "writer", property(scripted))
    shutil.copy(picture, "first.png")
    options = ("--model", model, "--device", "cpu", "--decoder-steps", "1", "--image-num-inference-steps", "2")
    turns = ("tell a story", "go on", "--image", "first.png", "--draw", "--system", "Be brief.")
    told = call("chat", *turns, *options, "--temperature", "1", "--seed", "3", "--history", "talk.json", "-o", "talk")
    assert told.code == 0, told.err
    files = [f"talk/{name}" for name in ("tell-a-story-3-1.png", "tell-a-story-3-2.png", "go-on-4-1.png")]
    prompts = [writer.prompts for writer in writers]
    assert len(prompts) == 2 and len(prompts[1][0]) > len(prompts[0][0])
    for file, asked in zip(files, (prompts[0], prompts[0], prompts[1]), strict=True):
        found = call("reproduce", file, "-o", "again.png")
        assert found.code == 0 and "the same picture" in found.out, found
        assert Path("again.png").read_bytes() == Path(file).read_bytes()
        assert writers[-1].prompts == asked
    assert len({Path(file).read_bytes() for file in files}) == 3
    # Elsewhere, without the history and with the picture under another name.
    (tmp_path / "moved").mkdir()
    Path(files[2]).rename("moved/last.png")
    Path("first.png").rename("moved/shown.png")
    Path("talk.json").unlink()
    refused(call("reproduce", "moved/last.png"), "picture 1", "missing", "--image")
    again = call("reproduce", "moved/last.png", "--image", "moved/shown.png", "-o", "again.png", "--json").json
    assert again["same"] is True and again["changes"] == []
    record = read_record("moved/last.png")
    assert [message["role"] for message in record.messages] == ["system", "user", "assistant", "user"]
    for parts in ([3], [{"type": "image", "source": 7}], [{"type": "image", "source": "x"}]):
        message = {"role": "user", "content": parts}
        save_png(Image.new("RGB", (4, 4)), "bad.png", record.model_copy(update={"messages": [message]}))
        refused(call("reproduce", "bad.png", "--image", "moved/shown.png", "-o", "again.png"), "messages")


def test_records_come_back_from_every_format(tmp_path: Path) -> None:
    record = Record(
        **MAKER.model_dump(),
        task="edit",
        prompt="123",
        sources=[metadata.Input(path="a.png", sha256="1" * 64), metadata.Input(sha256="2" * 64)],
        mask=metadata.Input(sha256="3" * 64),
        seed=2**63,
        index=2,
        count=3,
        arguments={"top_k": 4, "decoder": "turbo"},
        settings={"edit": {"top_p": None}},
    )
    image, buffer = Image.new("RGB", (4, 4), "red"), BytesIO()
    save_png(image, buffer, record)
    (tmp_path / "buffer.png").write_bytes(buffer.getvalue())
    save_png(image, tmp_path / "file.PNG", record)
    metadata.save_picture(image, tmp_path / "file.jpg", record.facts())
    metadata.save_picture(image, tmp_path / "file.webp", record.facts())
    for name in ("buffer.png", "file.PNG", "file.jpg", "file.webp"):
        assert read_record(tmp_path / name) == record
    with Image.open(tmp_path / "buffer.png") as stored:
        assert list(stored.text)[:4] == ["task", "prompt", "model", "seed"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"\.png"):
        save_png(image, tmp_path / "file.gif", record)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"seed": "many"}, "seed"),
        ({"task": "paint"}, "task"),
        ({"sources": "[3]"}, "sources"),
        ({"more": "1"}, "more"),
    ],
)
def test_records_that_make_no_sense_are_refused(tmp_path: Path, facts: dict[str, str], words: str) -> None:
    plain = Record(**MAKER.model_dump(), task="generate", prompt="a cat", seed=1).facts()
    metadata.save_picture(Image.new("RGB", (4, 4)), tmp_path / "cat.png", plain | facts)
    with pytest.raises(ValueError, match=words):
        read_record(tmp_path / "cat.png")


def test_a_record_cannot_call_what_is_no_argument(call: Command, model: Path) -> None:
    pipe = unimodal.load(model, device="cpu")
    maker = Maker.of(pipe, str(model))
    for arguments in ({"colour": "red"}, {"generator": 3}, {"callback_on_step_end": "print"}, {"prompt": "b"}):
        record = Record.of_call(maker, pipe, "generate", prompt="a cat", seed=1, arguments=arguments)
        save_png(Image.new("RGB", (4, 4)), "cat.png", record)
        refused(call("reproduce", "cat.png", "-o", "again.png"), "arguments", next(iter(arguments)))


def test_fingerprints_tell_pictures_and_checkpoints_apart(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = gradient()
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "small.png", optimize=True, compress_level=9)
    digests = {picture_sha256(Image.open(tmp_path / name)) for name in ("plain.png", "small.png")}
    assert digests == {picture_sha256(image)}
    image.putpixel((3, 3), (0, 0, 0))
    assert picture_sha256(image) not in digests
    stored = image.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6
    assert picture_sha256(image.quantize()) != picture_sha256(image.transpose(Image.Transpose.ROTATE_90).quantize())

    monkeypatch.setattr(fingerprints, "WHOLE_FILE", 1000)
    monkeypatch.setattr(fingerprints, "SAMPLE", 100)
    first = checkpoint_sha256(model)
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / "README.md").write_text("another page", encoding="utf-8")
    assert checkpoint_sha256(copy) == first, "pages do not count"
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert checkpoint_sha256(copy) != first
    weights.write_bytes(content + b" ")
    assert checkpoint_sha256(copy) != first
