"""The rooms: where packages live, that none hides Hugging Face's, and that everything needed is shipped."""

import ast
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("tokenizers", "decoders", "apps", "configs")
PACKAGES = ("unimodal", *(f"{room}/unimodal_{room}" for room in ROOMS))
LONGEST_MODULE = 400

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules() -> list[Path]:
    return sorted(path for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_source_root_with_one_package(room: str) -> None:
    folder = ROOT / room
    assert not (folder / "__init__.py").exists()
    assert [path.parent.name for path in folder.glob("*/__init__.py")] == [f"unimodal_{room}"]
    assert (folder / "README.md").is_file()


def test_top_level_folders_are_the_rooms() -> None:
    if shutil.which("git") is None:
        pytest.skip("what belongs to the project is asked of git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = {line.split("/")[0] for line in listed.splitlines() if "/" in line and not line.startswith(".")}
    assert found <= {"unimodal", *ROOMS, "tests"}


def test_tests_are_flat() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert {path.parent for path in (ROOT / "tests").rglob("*.py")} == {ROOT / "tests"}


def test_hugging_face_tokenizers_is_found_from_the_root() -> None:
    code = (
        "import pathlib, tokenizers; from transformers import PreTrainedTokenizerFast;"
        f"assert not pathlib.Path(tokenizers.__file__).is_relative_to({str(ROOT / 'tokenizers')!r})"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_resources_are_found() -> None:
    for name in ("tiny", "uni_16b"):
        assert (files("unimodal_configs") / "models" / f"{name}.yaml").is_file()
    assert (files("unimodal") / "assets" / "pictures" / "tour.yaml").is_file()
    assert (files("unimodal") / "assets" / "pages" / "quickstart.html").is_file()


def test_the_embedded_checkpoint_is_small_and_complete() -> None:
    folder = ROOT / "unimodal" / "assets" / "tiny"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 40_000_000
    for name in ("config.json", "tokenizer.json", "README.md", "image_tokenizer", "decoder", "decoder-turbo", "vae"):
        assert (folder / name).exists(), name


def test_every_package_and_the_assets_are_shipped() -> None:
    build = SETTINGS["tool"]["hatch"]["build"]
    assert sorted(build["targets"]["wheel"]["packages"]) == sorted(PACKAGES)
    assert "unimodal/assets/**" in build["artifacts"]
    rooms = {"unimodal", *ROOMS, "tests"}
    assert rooms <= set(build["targets"]["sdist"]["include"])


def test_modules_are_not_named_like_those_of_the_standard_library() -> None:
    clashes = [path for path in modules() if path.stem in sys.stdlib_module_names]
    assert not clashes


def test_modules_say_what_they_are_and_stay_readable() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        if path.name != "__init__.py" or text.strip():
            assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring"
        if path.parent.name != "tests":
            assert len(text.splitlines()) <= LONGEST_MODULE, f"{path.relative_to(ROOT)} is too long"
        assert path.stem not in ("utils", "helpers", "common", "misc"), path


def test_images_are_bound_to_the_vocabulary_in_one_place() -> None:
    """Only `vocab.py` adds or subtracts the image offset."""
    allowed = {"vocab.py"}
    for path in (ROOT / "unimodal").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
                names = {getattr(part, "attr", getattr(part, "id", "")) for part in (node.left, node.right)}
                assert "image_token_offset" not in names or path.name in allowed, (
                    f"{path.relative_to(ROOT)}:{node.lineno}"
                )
