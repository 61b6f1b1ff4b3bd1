"""Options and fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent

pytest.register_assert_rewrite(
    "bag_model",
    "command_line",
    "conformance_text",
    "conformance_image_tokenizer",
    "conformance_decoder",
    "conformance_tasks",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=HERE / "golden",
        metavar="FOLDER",
        help="folder that holds reference checkpoints with their cases (default: tests/golden)",
    )


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of reference checkpoints."""
    folder = request.config.getoption("--golden")
    assert isinstance(folder, Path)
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(0)
