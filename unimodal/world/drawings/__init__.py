"""How the picture-book world looks: one small function per kind of thing and per background."""

from __future__ import annotations

from collections.abc import Callable

from unimodal.world.drawings.animals import ANIMALS
from unimodal.world.drawings.backgrounds import BACKGROUNDS
from unimodal.world.drawings.buildings import BUILDINGS
from unimodal.world.drawings.canvas import PALETTE, Canvas
from unimodal.world.drawings.food import FOOD
from unimodal.world.drawings.plants import PLANTS
from unimodal.world.drawings.shapes import SHAPES
from unimodal.world.drawings.vehicles import VEHICLES

DRAWINGS: dict[str, Callable[[Canvas], None]] = {**VEHICLES, **ANIMALS, **PLANTS, **FOOD, **BUILDINGS, **SHAPES}

__all__ = ["BACKGROUNDS", "DRAWINGS", "PALETTE", "Canvas"]
