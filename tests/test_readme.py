"""Every code block of the README is run; a block or command that this file does not know how to run fails.

What is run is what is written, but for these replacements, so that the page can be tested in minutes and offline:

- the published checkpoint is a reference checkpoint with random weights, on the CPU, with few steps and small pictures;
- training stages are those of the smallest model, a few steps long (`test_training.OVERRIDES`); `eval` takes 2 samples;
- `pip install -e` only prepares this project (`--dry-run`, not editable, which would fetch a build tool),
  and `pytest` runs one file. Both are run as they are written, in a new environment, by `.ci/run`;
- what stays up until it is stopped (`SERVICES`) is started, has to answer, and is stopped.
"""

import contextlib
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from test_training import OVERRIDES

from unimodal_apps.cli import app

ROOT = Path(__file__).parents[1]
PUBLISHED = "inclusionAI/LLaDA2.0-Uni"
FEW_STEPS = {
    "generate": ["--num-inference-steps", "2", "--decoder-steps", "1", "--height", "256", "--width", "256"],
    "understand": ["--num-inference-steps", "2", "--gen-length", "8"],
}
SERVICES = {"demo": "http://127.0.0.1:7860/", "serve": "http://127.0.0.1:8000/health"}
FLOW = (
    ("unimodal_tokenizers.siglip_vq", "ImageTokenizer"),
    ("unimodal_tokenizers.text", "TextTokenizer"),
    ("unimodal_decoders.pixel_decoder", "PixelDecoder"),
)


class Block(NamedTuple):
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.language} block at line {self.line}"


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start()].count("\n") + 1) for match in found]


BLOCKS = blocks()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    monkeypatch.chdir(folder)
    return folder


def test_set_up_is_exactly_two_commands() -> None:
    commands = [block.text.strip() for block in BLOCKS if block.text.startswith("pip ")]
    assert commands == ["pip install -e . && unimodal quickstart", 'pip install -e ".[test]" && pytest']


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_commands_run(block: Block, folder: Path, golden: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in block.text.splitlines():
        for command in line.split("&&"):
            words = shlex.split(command)
            if words[0] == "unimodal" and words[1] in SERVICES:
                with running(words[1]):
                    pass
            elif words[0] == "unimodal":
                with pytest.raises(SystemExit) as ended:
                    app(replaced(words[1:], golden), prog_name="unimodal")
                assert ended.value.code == 0, f"{command}: {capfd.readouterr().err}"
            elif words[:3] == ["pip", "install", "-e"]:
                options = ["--dry-run", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
                call("-m", "pip", "install", *options, *words[3:])
            elif words == ["pytest"]:
                call("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_public_names.py")
            else:
                pytest.fail(f"README.md: there is no way to run {command!r}")
    for picture in folder.rglob("*.png"):
        with Image.open(picture) as image:
            image.verify()


@contextlib.contextmanager
def running(verb: str) -> Iterator[None]:
    """The command in a process of its own, once it answers; it has to end well when it is interrupted."""
    rooms = os.pathsep.join(str(ROOT / room) for room in (".", "tokenizers", "decoders", "apps", "configs"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([rooms, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", "from unimodal_apps.cli import main; main()", verb]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(SERVICES[verb], timeout=10).close()
                break
            assert process.poll() is None and time.monotonic() < deadline, f"unimodal {verb} does not answer"
            time.sleep(0.5)
        yield
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode in (0, 130), told
    finally:
        process.kill()
        process.communicate()


def replaced(words: list[str], golden: Path) -> list[str]:
    """The words of a command, shortened."""
    verb = words[0]
    if PUBLISHED in words:
        assert words[words.index("--device") + 1] == "cuda"
        swaps = {PUBLISHED: str(golden / "uni_a"), "cuda": "cpu"}
        return [*(swaps.get(word, word) for word in words), *FEW_STEPS[verb]]
    if verb == "train":
        return [*words, "--cpu", *(word for value in OVERRIDES[words[1]] for word in ("--set", value))]
    if verb == "eval":
        return ["2" if before == "--samples" else word for before, word in zip(["", *words], words, strict=False)]
    return words


def call(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_python_runs(block: Block, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running("serve") if "base_url" in block.text else contextlib.nullcontext():
        exec(compile(block.text, f"README.md, {block}", "exec"), {"__name__": "readme"})
    assert capfd.readouterr().out


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "text"], ids=str)
def test_drawings_are_true(block: Block) -> None:
    """The tree names what is there, and all packages; the flow names the classes that there are."""
    if "▶" in block.text:
        for module, name in FLOW:
            assert name in block.text and hasattr(importlib.import_module(module), name)
        return
    rows = [line.split("  ", 1) for line in block.text.splitlines()]
    assert all(len(row) == 2 and (ROOT / row[0]).is_dir() for row in rows), rows
    named = {row[0].rstrip("/") for row in rows}
    packages = {f"unimodal/{path.parent.name}" for path in (ROOT / "unimodal").glob("*/__init__.py")}
    assert packages | {"unimodal", "tokenizers", "decoders", "configs", "apps", "tests"} <= named


def test_no_block_is_left_out() -> None:
    assert {block.language for block in BLOCKS} == {"bash", "python", "text"}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(BLOCKS)


def test_links_lead_somewhere() -> None:
    rooms = ("unimodal", "tokenizers", "decoders", "configs", "apps", "tests")
    for place in (ROOT / "README.md", *(page for room in rooms for page in (ROOT / room).rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", place.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (place.parent / target).exists(), f"{place}: {target}"


def test_ci_runs_the_test_command_as_it_is_written_here() -> None:
    done = subprocess.run([ROOT / ".ci" / "run", "--test-command"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == 'pip install -e ".[test]" && pytest', done.stderr
