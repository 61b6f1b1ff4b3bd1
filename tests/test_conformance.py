"""Every reference case of every folder under `--golden` (default `tests/golden`), whatever their names and sizes.

Four modules know the four kinds of cases. Each has `cases(folder)`, the names of the cases in the folder's
`cases_<kind>.json`, and `run(folder, case)`, which fails where ours differs from the recorded reference.
"""

import importlib
from pathlib import Path

import pytest

KINDS = ("text", "image_tokenizer", "decoder", "tasks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = metafunc.config.getoption("--golden")
    if not isinstance(root, Path) or not root.is_dir():
        raise pytest.UsageError(f"--golden: no folder {root}")
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    found = [
        pytest.param(folder, kind, case, id=f"{folder.name}-{kind}-{case}")
        for folder in folders
        for kind in KINDS
        if (folder / f"cases_{kind}.json").is_file()
        for case in importlib.import_module(f"conformance_{kind}").cases(folder)
    ]
    if not found:
        raise pytest.UsageError(f"--golden: no folder in {root} holds cases")
    metafunc.parametrize(("folder", "kind", "case"), found)


def test_reference(folder: Path, kind: str, case: str) -> None:
    importlib.import_module(f"conformance_{kind}").run(folder, case)
