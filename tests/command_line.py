"""The command line called from tests, in this process or one of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from unimodal_apps.cli import app

QUICK = ("--num-inference-steps", "2", "--decoder-steps", "1", "--height", "256", "--width", "256", "--device", "cpu")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            app([str(argument) for argument in arguments], prog_name="unimodal")
        captured = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def model(golden: Path) -> Path:
    return golden / "uni_a"


@pytest.fixture
def picture(model: Path) -> Path:
    return model / "images" / "image_0.png"


@pytest.fixture
def small_edits(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, which edits pictures in the size of 8 x 8 codes."""
    copy = tmp_path_factory.mktemp("model") / "small_edits"
    shutil.copytree(model, copy, ignore=shutil.ignore_patterns("cases_*", "images"))
    path = copy / "generation_config.json"
    stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(stated | {"tasks": {"images": {"edit_patches": 64}}}), encoding="utf-8")
    return copy


def run_alone(folder: Path, *arguments: str, **variables: str) -> Outcome:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "unimodal_apps.cli", *arguments]
    environs = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | variables
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environs)
    return Outcome(done.returncode, done.stdout, done.stderr)


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(outcome: Outcome, *words: str) -> None:
    """One line, exit code 2, and the words that say what is wrong and what is allowed."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.endswith("\n") and outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err, outcome.err
