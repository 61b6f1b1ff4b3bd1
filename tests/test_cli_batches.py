"""Batches from JSONL: the same as single calls, checked before anything is made, and continued where they stopped."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Command, call, model, picture, refused, small_edits, written
from PIL import Image

from unimodal import Pipeline
from unimodal_apps import batches

__all__ = ["call", "model", "picture", "small_edits"]

NEVER = "the pipeline must not be called"


def jsonl(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    return path


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of requests of each call of the pipeline."""
    sizes: list[int] = []
    perform = batches.perform

    def noted(pipe: Pipeline, requests: Any) -> Any:
        sizes.append(len(requests))
        return perform(pipe, requests)

    monkeypatch.setattr(batches, "perform", noted)
    return sizes


def test_a_batch_draws_what_single_calls_draw_and_goes_on_where_it_stopped(
    call: Command, model: Path, tmp_path: Path, counted: list[int]
) -> None:
    lines = [
        {"prompt": "a cat"},
        {"prompt": "two dögs", "id": "dogs", "seed": 5, "num_images": 2},
        '"a car"',
        '"a house"',
    ]
    source = jsonl(tmp_path / "prompts.jsonl", *lines)
    command = ("generate", "--input", source, "--output", "drawn", "--model", model, *QUICK, "--batch-size", "2")
    made = call(*command)
    assert made.code == 0 and made.err == "", made.err
    assert counted == [1, 2, 1, 1], "the lines of another count are tried first, then all in twos"
    names = ["1.png", "3.png", "4.png", "dogs-1.png", "dogs-2.png"]
    assert written(tmp_path / "drawn") == [*names, "results.jsonl"]
    found = {entry["id"]: entry for entry in entries(tmp_path / "drawn")}
    assert list(found) == ["1", "3", "4", "dogs"] and found["dogs"]["images"] == names[3:]
    assert made.out.splitlines()[0].startswith("1  1.png  (seed ")
    for name, count in (("3", 1), ("dogs", 2)):
        entry = found[name]
        arguments = ("--seed", entry["seed"], "--num-images", count, "--output", f"{name}-alone.png")
        assert call("generate", entry["text"], "--model", model, *QUICK, *arguments).code == 0
        for path in entry["images"]:
            alone = path.replace(name, f"{name}-alone")
            assert pixels(tmp_path / "drawn" / path) == pixels(alone)

    # One picture is lost, and the last line was being written when the power went.
    (tmp_path / "drawn" / "3.png").unlink()
    results = tmp_path / "drawn" / "results.jsonl"
    whole = results.read_text(encoding="utf-8")
    cut = "".join(whole.splitlines(keepends=True)[:3]) + whole.splitlines()[3][:40]
    results.write_text(cut, encoding="utf-8")
    kept = (tmp_path / "drawn" / "1.png").stat().st_mtime_ns
    del counted[:]
    again = call(*command)
    assert again.code == 0 and again.out.endswith("results.jsonl  (2 new, 2 there before)\n")
    assert sum(counted) == 3 and (tmp_path / "drawn" / "1.png").stat().st_mtime_ns == kept
    assert {entry["id"] for entry in entries(tmp_path / "drawn")} == {"1", "3", "4", "dogs"}
    assert written(tmp_path / "drawn") == [*names, "results.jsonl"]

    del counted[:]
    assert call(*command).out == "drawn/results.jsonl  (0 new, 4 there before)\n" and counted == []
    jsonl(source, '"a boat"', *lines[1:])
    refused(call(*command), "line 1", "'1'", "another")
    refused(call(*command[:-2], "--seed", 3), "line", "seed")


def test_questions_come_from_and_go_to_the_standard_streams(call: Command, model: Path, picture: Path) -> None:
    lines: list[dict[str, Any]] = [{"question": "what is it?", "images": str(picture), "id": "a"}]
    lines.append({"question": "which one is darker?", "images": [str(picture)] * 2, "seed": 4, "temperature": 1.0})
    options = ("--model", model, "--gen-length", "8", "--num-inference-steps", "2", "--device", "cpu")
    asked = "\n".join(map(json.dumps, lines)).encode()
    found = call("understand", "--input", "-", *options, stdin=asked)
    assert found.code == 0 and found.err == ""
    first, second = map(json.loads, found.out.splitlines())
    assert (first["id"], second["id"], second["seed"]) == ("a", "2", 4)
    assert second["arguments"] == {"gen_length": 8, "num_inference_steps": 2, "temperature": 1.0}
    alone = call(
        *("understand", picture, picture, "-q", "which one is darker?", "--seed", 4, "--temperature", 1.0), *options
    )
    assert alone.out == f"{second['answer']}\n"


def test_edits_stories_and_gaps_in_batches(
    call: Command, model: Path, small_edits: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    with Image.open(picture) as image:
        image.save(tmp_path / "in" / "first.png")
        Image.new("L", image.size, 255).save(tmp_path / "in" / "mask.png")
    edits: list[dict[str, Any]] = [{"instruction": "make it blue", "images": "first.png", "id": "blue"}]
    edits.append({"instruction": "make it red", "images": ["first.png"], "mask": "mask.png", "id": "red"})
    source = jsonl(tmp_path / "in" / "edits.jsonl", *edits)
    found = call("edit", "--input", source, "-o", "edited", "--model", small_edits, *QUICK[:4], "--device", "cpu")
    assert found.code == 0, found.err
    blue, red = entries(tmp_path / "edited")
    assert blue["sources"] == [{"path": str(tmp_path / "in" / "first.png"), "sha256": blue["sources"][0]["sha256"]}]
    assert red["images"] == ["red.png"] and red["mask"]["path"].endswith("mask.png")

    source = jsonl(tmp_path / "in" / "stories.jsonl", {"prompt": "a tale", "images": "first.png", "id": "tale"})
    options = ("--model", model, "--gen-length", "8", "--num-inference-steps", "2", "--device", "cpu")
    found = call("interleave", "--input", source, "-o", "told", *options, "--json")
    assert found.code == 0, found.err
    assert found.json["story"] == "tale/story.md" and (tmp_path / "told" / "tale" / "story.md").is_file()
    assert call("interleave", "--input", source, "-o", "told", *options).out.endswith("(0 new, 1 there before)\n")

    gaps = [{"text": "a <gap:1> car"}, {"text": "the <gap> house", "prompt": "say it"}]
    asked = "\n".join(map(json.dumps, gaps)).encode()
    found = call("infill", "--input", "-", "--model", model, "--num-inference-steps", 2, stdin=asked)
    assert found.code == 0, found.err
    filled = [json.loads(line) for line in found.out.splitlines()]
    assert filled[0]["answer"].startswith("a") and filled[0]["answer"].endswith(" car")
    assert [len(entry["gaps"]) for entry in filled] == [1, 1] and filled[1]["arguments"]["prompt"] == "say it"


BAD_LINES = {
    "no JSON": ("generate", ['"a cat"', "{prompt: a cat}"], ("line 2", "not JSON")),
    "no object": ("generate", ["[1]"], ("line 1", "'prompt'")),
    "unknown key": ("generate", [{"prompt": "a cat", "heigth": 256}], ("line 1", "'heigth'", "height")),
    "wrong type": ("generate", [{"prompt": "a cat", "height": "tall"}], ("line 1", "height", "'tall'")),
    "no prompt": ("generate", ['""', {"seed": 1}], ("line 1", "prompt", "line 2")),
    "a seed below 0": ("generate", [{"prompt": "a cat", "seed": -1}], ("line 1", "seed", "-1")),
    "an id that leaves the folder": ("generate", [{"prompt": "a cat", "id": "../cat"}], ("line 1", "../cat")),
    "an id twice": ("generate", [{"prompt": "a", "id": "cat"}, {"prompt": "b", "id": "Cat"}], ("line 2", "line 1")),
    "a missing picture": ("edit", [{"instruction": "blue", "images": "no.png"}], ("line 1", "no.png", "no file")),
    "no picture": ("understand", [{"question": "what?"}], ("line 1", "images", "missing")),
    "a blank file": ("generate", [" ", ""], ("no line",)),
    "a setting that cannot be": ("generate", ['"a cat"', {"prompt": "a dog", "height": 100}], ("line 2", "100", "256")),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines_are_named_before_anything_is_made(call: Command, model: Path, tmp_path: Path, case: str) -> None:
    verb, lines, words = BAD_LINES[case]
    jsonl(tmp_path / "lines.jsonl", *lines)
    refused(call(verb, "--input", "lines.jsonl", "--output", "made", "--model", model), *words)
    assert written(tmp_path) == ["lines.jsonl"]


def test_a_batch_needs_a_folder_of_its_own(call: Command, tmp_path: Path) -> None:
    jsonl(tmp_path / "prompts.jsonl", '"a cat"')
    refused(call("generate", "--input", "prompts.jsonl"), "--output")
    refused(call("generate", "--input", "nowhere.jsonl", "-o", "made"), "--input", "nowhere.jsonl")
    jsonl(tmp_path / "results.jsonl", {"something": "else"})
    refused(call("generate", "--input", "prompts.jsonl", "-o", tmp_path), "results.jsonl, line 1", "--output")


def test_an_interrupted_batch_keeps_what_is_done(
    call: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "prompts.jsonl", '"a cat"', '"a dog"')
    perform, calls = batches.perform, []

    def interrupted(pipe: Pipeline, requests: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return perform(pipe, requests)

    monkeypatch.setattr(batches, "perform", interrupted)
    command = ("generate", "--input", source, "-o", "made", "--model", model, *QUICK, "--batch-size", "1")
    assert call(*command).code == 130
    assert written(tmp_path / "made") == ["1.png", "results.jsonl"]
    assert call(*command).out.endswith("(1 new, 1 there before)\n")
    assert [entry["id"] for entry in entries(tmp_path / "made")] == ["1", "2"]
