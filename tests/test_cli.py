"""The command line: every verb on a reference checkpoint, and every kind of bad input in one line."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from command_line import QUICK, Command, call, model, picture, refused, run_alone, written
from PIL import Image
from safetensors.torch import load_file, save_file

import unimodal
from unimodal_apps.cli import app

__all__ = ["call", "model", "picture"]
VERBS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_understand_answers(call: Command, model: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("understand", picture, picture, "-q", "what is it?", "-q", "where?", "--model", model, "--seed", "1")
    found = call(*arguments, "--gen-length", "8", "--json", "--output", "answers.json", "--device", "cpu")
    assert found.code == 0 and found.err == ""
    assert [source["path"] for source in found.json["sources"]] == [str(picture)] * 2
    assert [entry["question"] for entry in found.json["answers"]] == ["what is it?", "where?"]
    assert found.json["answer"] == found.json["answers"][0]["answer"]
    assert found.json["arguments"] == {"gen_length": 8} and found.json["seed"] == 1
    assert found.json["settings"]["understand"]["gen_length"] > 8
    assert json.loads((tmp_path / "answers.json").read_text(encoding="utf-8")) == found.json
    plain = call(*arguments, "--gen-length", "8", "--device", "cpu")
    assert plain.out == "".join(f"{entry['answer']}\n" for entry in found.json["answers"])


def test_generate_writes_pictures_that_say_how_they_were_made(call: Command, model: Path, tmp_path: Path) -> None:
    arguments = ("generate", "a réd cat", "--model", model, *QUICK, "--seed", "7")
    found = call(*arguments, "--num-images", "2", "--output", "cats/cat.png", "--json")
    assert found.code == 0 and found.err == ""
    assert written(tmp_path) == ["cats", "cats/cat-1.png", "cats/cat-2.png"]
    assert found.json["images"] == ["cats/cat-1.png", "cats/cat-2.png"]
    with Image.open("cats/cat-1.png") as image:
        assert image.size == (256, 256)
        facts = image.text  # type: ignore[attr-defined]
    assert facts["prompt"] == "a réd cat" and facts["model"] == str(model) and facts["seed"] == "7"
    assert json.loads(facts["arguments"])["num_inference_steps"] == 2
    assert json.loads(facts["settings"])["generate"]["guidance_rescale"] >= 0
    assert set(found.json["stats"]) == {"forwards", "tokens", "tokens_per_forward", "seconds"}


def test_a_seed_draws_the_same_picture_again(call: Command, model: Path, tmp_path: Path) -> None:
    first = call("generate", "a cat", "--model", model, *QUICK, "--json")
    [name] = first.json["images"]
    assert name == f"outputs/a-cat-{first.json['seed']}.png"
    call("generate", "a cat", "--model", model, *QUICK, "--seed", first.json["seed"], "--output", "again.png")
    again, other = Path(name).read_bytes(), Path("again.png").read_bytes()
    assert again == other
    call("generate", "a cat", "--model", model, *QUICK, "--seed", "1", "--output", "other.webp")
    with Image.open("other.webp") as image:
        assert json.loads(image.getexif()[0x010E])["prompt"] == "a cat"


def test_generate_thinks_aloud(call: Command, model: Path) -> None:
    arguments = ("generate", "a cat", "--thinking", "--thinking-gen-length", "16", "--model", model, *QUICK)
    found = call(*arguments, "--json", "--dtype", "bfloat16")
    assert found.code == 0 and len(found.json["thinking"]) == 1


def test_edit_takes_several_pictures(call: Command, model: Path, picture: Path, tmp_path: Path) -> None:
    found = call("edit", picture, picture, "--instruction", "make it blue", "--model", model, *QUICK, "-o", "blue.png")
    assert found.code == 0 and found.err == ""
    assert written(tmp_path) == ["blue.png"]
    assert found.out.startswith("blue.png  (256 x 256 pixels, seed ")


def test_interleave_writes_a_story(call: Command, model: Path, picture: Path, tmp_path: Path) -> None:
    options = ("--gen-length", "8", "--num-inference-steps", "2", "--output", "story", "--device", "cpu")
    found = call("interleave", "a tale", "--image", picture, "--model", model, *options, "--json")
    assert found.code == 0 and found.err == ""
    assert "story/story.md" in written(tmp_path)
    assert (tmp_path / "story" / "story.md").read_text(encoding="utf-8").startswith("# a tale\n")
    assert found.json["finish_reason"] in ("stop", "length", "max_images", "broken_header")


def test_gaps_are_filled(call: Command, model: Path) -> None:
    arguments = ("infill", "a <gap:1> car on the <gap>", "--model", model, "--num-inference-steps", "2", "--seed", "1")
    found = call(*arguments, "--gap-length", "4", "--json")
    assert found.code == 0, found.err
    assert found.json["answer"].startswith("a") and " car on the" in found.json["answer"]
    assert len(found.json["gaps"]) == 2 and found.json["arguments"]["gap_length"] == 4
    assert call(*arguments, "--gap-length", "4").out == f"{found.json['answer']}\n"


def test_a_conversation_goes_on_in_its_file(call: Command, model: Path, picture: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--gen-length", "8", "--num-inference-steps", "2", "--device", "cpu", "--seed", "4")
    arguments = ("chat", "what is it?", "is it large?", "--image", picture, "--history", "talk/talk.json", *options)
    found = call(*arguments, "--json")
    assert found.code == 0 and found.err == "", found.err
    assert [turn["seed"] for turn in found.json["turns"]] == [4, 5]
    asked = [message for message in found.json["messages"] if message["role"] == "user"]
    assert asked[0]["content"][0] == {"type": "image", "image": str(picture)}
    kept = json.loads((tmp_path / "talk" / "talk.json").read_text(encoding="utf-8"))
    assert (tmp_path / "talk" / kept[0]["content"][0]["image"]).samefile(picture)
    told = call("chat", "--history", "talk/talk.json", *options, "--json", stdin=b"\nand its color?\n")
    assert told.code == 0 and [turn["seed"] for turn in told.json["turns"]] == [6]
    assert len([message for message in told.json["messages"] if message["role"] == "user"]) == 3
    plain = call(*(word for word in arguments if word not in ("--history", "talk/talk.json")))
    said = [message["content"] for message in found.json["messages"] if message["role"] == "assistant"]
    assert plain.out.split() == "\n".join(said).split()
    (tmp_path / "talk" / "talk.json").write_text("[3]", encoding="utf-8")
    refused(call("chat", "hello", "--history", "talk/talk.json"), "--history", "list of messages")
    refused(call("chat", " "), "message", "not empty")
    refused(call("chat", "hello", "--image", "nowhere.png"), "nowhere.png")


def test_info_counts_a_configuration_and_a_folder(call: Command, model: Path) -> None:
    found = call("info", "--model", "uni_16b", "--json").json
    parts = {part["name"]: part for part in found["components"]}
    assert parts["backbone"]["parameters"] == 16_322_747_392 and parts["backbone"]["tensors"] == 14_813
    assert parts["decoder"]["memory"]["bfloat16"] == 12_321_617_024
    table = call("info").out
    assert "16,322,747,392" in table and "1,199,457,280" in table and "tiny" in table
    folder = call("info", model, "--json").json
    stored = load_file(model / "model.safetensors")
    [backbone] = [part for part in folder["components"] if part["name"] == "backbone"]
    assert backbone["tensors"] == len(stored)
    assert backbone["parameters"] + backbone["buffers"] == sum(tensor.numel() for tensor in stored.values())


def test_train_writes_a_part(call: Command, tmp_path: Path) -> None:
    found = call("train", "text-tokenizer", "--checkpoint", "run", "--set", "examples=20", "--cpu", "--json")
    assert found.code == 0 and (tmp_path / "run" / "tokenizer.json").is_file()
    assert found.json["stage"] == "text-tokenizer"


def test_eval_writes_scores(call: Command, monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def evaluate(pipe: Any, samples: int, seed: int, **options: Any) -> dict[str, Any]:
        seen.update(options, samples=samples, seed=seed)
        return {"understand": {"accuracy": 0.5}}

    monkeypatch.setattr("unimodal.evaluation.run.evaluate", evaluate)
    arguments = ("eval", "--model", model, "--samples", "3", "--seed", "2", "--device", "cpu", "--task", "understand")
    found = call(*arguments, "--json", "scores.json")
    assert found.code == 0 and found.out == "scores.json\n"
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores == {"model": str(model), "understand": {"accuracy": 0.5}}
    assert seen == {"samples": 3, "seed": 2, "level": "standard", "tasks": ("understand",), "progress": False}


def test_a_dash_reads_and_writes_the_standard_streams(
    call: Command, model: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("edit", picture, "-i", "make it blue", "--model", model, *QUICK, "--seed", "3", "-o", "file.png")
    written_out = TextIOWrapper(BytesIO())
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", written_out)
        arguments = ("edit", "-", "-i", "make it blue", "--model", model, *QUICK, "--seed", "3", "-o", "-")
        found = call(*arguments, stdin=picture.read_bytes())
    assert found.code == 0 and found.err == "-  (256 x 256 pixels, seed 3)\n"
    written_out.seek(0)
    with Image.open(written_out.buffer) as piped, Image.open("file.png") as saved:
        assert piped.tobytes() == saved.tobytes()
        facts = piped.text  # type: ignore[attr-defined]
    assert "path" not in json.loads(facts["sources"])[0]
    told = call("generate", "-", "--model", model, *QUICK, "--json", stdin="a réd cat\n".encode())
    assert told.json["prompt"] == "a réd cat"
    refused(call("generate", "-", "--model", model, stdin=b" \n"), "prompt", "empty")
    refused(call("understand", "-", "-q", "what?", stdin=b"no picture"), "picture", "standard input")


def test_help_and_version(call: Command) -> None:
    for arguments in ((), ("--help",)):
        found = call(*arguments)
        assert found.code == 0 and "interleave" in found.out and "Exit codes" in found.out
    assert call("--version").out.strip() == unimodal.__version__
    assert "--guidance-scale" in call("generate", "--help").out


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_examples_are_commands_that_there_are(verb: str) -> None:
    """Every example of a help page is parsed, and every verb has some."""
    lines = re.split("Examples?:", VERBS[verb].help)[-1].splitlines()
    examples = [part.strip() for line in lines for part in re.split(r" [|>] ", line) if "unimodal " in part]
    assert examples, f"{verb} has no example"
    for example in examples:
        name, *words = shlex.split(example)[1:]
        VERBS[name].make_context(name, words)


def test_completion_knows_verbs_options_and_values(tmp_path: Path) -> None:
    script = run_alone(tmp_path, _UNIMODAL_COMPLETE="source_bash")
    assert "_UNIMODAL_COMPLETE" in script.out

    def completed(line: str) -> list[str]:
        place = {"COMP_WORDS": f"unimodal {line}", "COMP_CWORD": str(len(line.split(" ")))}
        return run_alone(tmp_path, _UNIMODAL_COMPLETE="complete_bash", **place).out.split()

    assert completed("gen") == ["generate"]
    assert "--guidance-scale" in completed("generate --gui")
    assert completed("generate --model ti") == ["tiny"]
    assert completed("edit --decoder ") == ["turbo", "normal"]


BAD_ARGUMENTS = {
    "unknown verb": (("drow",), ("drow", "understand, generate, edit")),
    "unknown option": (("generate", "a cat", "--colour", "red"), ("--colour", "--height")),
    "no prompt": (("generate",), ("prompt", "--input")),
    "no instruction": (("edit", "{picture}"), ("--instruction", "--input")),
    "prompt and requests": (("generate", "a cat", "--input", "{text}"), ("prompt", "--input")),
    "standard input twice": (("edit", "-", "-", "-i", "mix"), ("standard input", "picture")),
    "picture and JSON to the standard output": (("generate", "a cat", "-o", "-", "--json"), ("--output", "--json")),
    "two pictures to the standard output": (("generate", "a cat", "-o", "-", "--num-images", "2"), ("one picture",)),
    "a story to the standard output": (("interleave", "a tale", "-o", "-"), ("--output", "folder")),
    "a seed of many digits": (("generate", "a cat", "--seed", str(2**64)), ("--seed", "2**64")),
    "too many arguments": (("generate", "a", "red", "cat"), ("red cat",)),
    "empty prompt": (("generate", " "), ("prompt", "not empty")),
    "empty question": (("understand", "{picture}", "-q", ""), ("question", "not empty")),
    "empty instruction": (("edit", "{picture}", "-i", ""), ("instruction", "not empty")),
    "empty story": (("interleave", ""), ("prompt", "not empty")),
    "no question": (("understand", "{picture}"), ("--question",)),
    "missing file": (("understand", "nowhere.png", "-q", "what?"), ("nowhere.png", "no file")),
    "not a picture": (("edit", "{text}", "-i", "make it blue"), ("note.txt", "not a picture")),
    "a folder as picture": (("understand", "{folder}", "-q", "what?"), ("no file",)),
    "missing story picture": (("interleave", "a tale", "--image", "nowhere.png"), ("image", "nowhere.png")),
    "height is no number": (("generate", "a cat", "--height", "tall"), ("--height", "integer")),
    "negative seed": (("generate", "a cat", "--seed", "-1"), ("--seed", "0")),
    "no pictures": (("generate", "a cat", "--num-images", "0"), ("num_images_per_prompt", "at least 1")),
    "unknown model": (("generate", "a cat", "--model", "huge"), ("--model", "'huge'", "embedded")),
    "unknown picture format": (("generate", "a cat", "-o", "cat.gif"), ("output", "cat.gif", ".png")),
    "output below a file": (("generate", "a cat", "-o", "{text}/cat.png"), ("output", "note.txt", "folder")),
    "output is a folder": (("understand", "{picture}", "-q", "what?", "-o", "{folder}"), ("output", "folder")),
    "unknown configuration": (("info", "uni_99b"), ("uni_99b", "uni_16b")),
    "configuration twice": (("info", "tiny", "--model", "tiny"), ("not both",)),
    "unknown stage": (("train", "brain", "--checkpoint", "run"), ("brain", "backbone")),
    "unknown recipe": (("train", "backbone", "--checkpoint", "run", "--recipe", "slow"), ("slow", "tiny_backbone")),
    "unknown recipe key": (("train", "backbone", "--checkpoint", "run", "--set", "stepz=1"), ("stepz",)),
    "no assignment": (("train", "backbone", "--checkpoint", "run", "--set", "steps"), ("steps", "key=value")),
    "a file as checkpoint": (("train", "text-tokenizer", "--checkpoint", "{text}"), ("--checkpoint", "folder")),
    "tour into a file": (("quickstart", "--output", "{text}"), ("output", "note.txt", "folder")),
    "unknown level": (("eval", "--model", "{model}", "--level", "huge"), ("huge", "standard")),
    "unknown task": (("eval", "--model", "{model}", "--task", "fly"), ("fly", "understand")),
    "scores into a folder": (("eval", "--json", "{folder}"), ("output", "folder")),
    "a part that is missing": (("train", "backbone", "--checkpoint", "run"), ("run/image_tokenizer", "config.json")),
    "no gap": (("infill", "a red car"), ("gap", "<gap>")),
    "no picture to reproduce": (("reproduce", "nowhere.png"), ("nowhere.png", "no file")),
    "a picture from elsewhere": (("reproduce", "{picture}"), ("image_0.png", "how it was made")),
    "no samples": (("eval", "--samples", "0"), ("--samples", "1")),
}

BAD_SETTINGS = {
    "height off the grid": (("--height", "100"), ("height", "100", "256")),
    "no steps": (("--num-inference-steps", "0"), ("num_inference_steps", "0")),
    "threshold out of range": (("--threshold", "2"), ("threshold", "2")),
    "top-p out of range": (("--top-p", "0"), ("top_p", "0")),
    "unknown decoder": (("--decoder", "fast"), ("decoder", "turbo", "normal")),
    "unknown device": (("--device", "gpu9"), ("device", "gpu9")),
    "unknown dtype": (("--dtype", "int3"), ("dtype", "int3", "bfloat16")),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line(
    call: Command, model: Path, picture: Path, tmp_path: Path, case: str
) -> None:
    arguments, words = BAD_ARGUMENTS[case]
    (tmp_path / "note.txt").write_text("no picture", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    places = {"model": model, "picture": picture, "text": tmp_path / "note.txt", "folder": tmp_path / "folder"}
    before = written(tmp_path)
    refused(call(*(argument.format(**places) for argument in arguments)), *words)
    assert written(tmp_path) == before


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_refused_in_one_line(call: Command, model: Path, tmp_path: Path, case: str) -> None:
    options, words = BAD_SETTINGS[case]
    refused(call("generate", "a cat", "--model", model, *QUICK, *options), *words)
    assert written(tmp_path) == []


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def relabel(path: Path) -> None:
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file({(f"{key}.other" if key == name else key): value for key, value in tensors.items()}, path)


def reshape(path: Path) -> None:
    tensors = load_file(path)
    name = max(tensors, key=lambda key: tensors[key].numel())
    save_file({**tensors, name: tensors[name][:-1].clone()}, path)


def scribble(path: Path) -> None:
    path.write_text("this is not what its name says", encoding="utf-8")


def forget(path: Path) -> None:
    path.unlink()


WEIGHTS = (
    "model.safetensors",
    "image_tokenizer/image_tokenizer.safetensors",
    "image_tokenizer/sigvq_embedding.pt",
    "decoder-turbo/decoder_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
CONFIGURATIONS = (
    *("config.json", "tokenizer.json", "image_tokenizer/config.json"),
    *("decoder-turbo/config.json", "vae/config.json"),
)
DAMAGES = [
    *((name, damage) for name in WEIGHTS for damage in (halve, scribble, forget)),
    *((name, damage) for name in WEIGHTS if name.endswith("safetensors") for damage in (relabel, reshape)),
    *((name, damage) for name in CONFIGURATIONS for damage in (scribble, forget)),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_damaged_checkpoints_are_refused_in_one_line(
    call: Command, model: Path, picture: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("cases_*", "images"))
    damage(copy / name)
    before = written(tmp_path)
    refused(call("edit", picture, "-i", "make it blue", "--model", copy, *QUICK), str(copy / name).split("/")[-2])
    assert written(tmp_path) == before


def test_a_pickle_in_place_of_weights_is_not_run(call: Command, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("cases_*", "images"))
    torch.save({"prior_token_embedding.weight": Path("x")}, copy / "image_tokenizer" / "sigvq_embedding.pt")
    refused(call("generate", "a cat", "--model", copy, *QUICK), "sigvq_embedding.pt")


def test_errors_of_the_program_itself_keep_their_traceback(call: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(unimodal, "load", broken, raising=False)
    with pytest.raises(KeyError):
        app(["generate", "a cat"], prog_name="unimodal")


def test_the_process_says_one_line_and_nothing_else(tmp_path: Path) -> None:
    refused(run_alone(tmp_path, "generate", "a cat", "--model", "nobody/nothing/here"), "nobody/nothing/here")
    assert written(tmp_path) == []
