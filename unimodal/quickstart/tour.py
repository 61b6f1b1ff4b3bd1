"""What the tour asks for: the bundled pictures, with questions, prompts, instructions and the beginning of a story."""

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from unimodal.output_files import save_picture
from unimodal.world.render import render
from unimodal.world.scene import Scene, load_level


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TourQuestion(_Data):
    """A question about a picture, with the one right answer."""

    picture: str
    question: str
    answer: str


class TourDrawing(_Data):
    prompt: str
    thinking: bool = False


class TourEdit(_Data):
    pictures: tuple[str, ...]
    instruction: str


class Tour(_Data):
    """Pictures are named; `level` is the level of the picture-book world that their scenes belong to."""

    level: str
    pictures: dict[str, Scene]
    questions: tuple[TourQuestion, ...]
    drawings: tuple[TourDrawing, ...]
    edits: tuple[TourEdit, ...]
    story: str


def read_tour() -> Tour:
    text = _bundled("tour.yaml").read_text(encoding="utf-8")
    return Tour.model_validate(yaml.safe_load(text))


def bundled_picture(name: str) -> Path:
    """The file of a picture of the tour, 256 pixels square."""
    return _bundled(f"{name}.png")


def draw_pictures(folder: str | Path) -> None:
    """Draws the pictures of the tour into a folder, from their scenes."""
    tour = read_tour()
    level = load_level(tour.level)
    for name, scene in tour.pictures.items():
        save_picture(render(scene, level), Path(folder) / f"{name}.png", {"scene": scene.model_dump()})


def _bundled(name: str) -> Path:
    return Path(str(files("unimodal") / "assets" / "pictures" / name))
