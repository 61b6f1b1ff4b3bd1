"""Things that move."""

from __future__ import annotations

from unimodal.world.drawings.canvas import BARK, CREAM, GLASS, INK, WHITE, Canvas


def _wheel(canvas: Canvas, x: float, y: float, radius: float) -> None:
    canvas.circle(x, y, radius, INK)
    canvas.circle(x, y, radius * 0.48, WHITE)


def car(canvas: Canvas) -> None:
    canvas.blob([(20, 50), (27, 20), (50, 13), (71, 20), (84, 50)], canvas.color)
    canvas.rectangle(3, 42, 97, 80, canvas.color, radius=13)
    canvas.polygon([(30, 43), (35, 25), (48, 22), (48, 43)], GLASS)
    canvas.polygon([(55, 43), (55, 22), (66, 25), (73, 43)], GLASS)
    canvas.rectangle(3, 64, 97, 69, canvas.shade)
    canvas.circle(91, 55, 5, CREAM)
    for x in (25, 75):
        _wheel(canvas, x, 81, 15)


def boat(canvas: Canvas) -> None:
    canvas.rectangle(43, 4, 48, 72, BARK)
    canvas.polygon([(51, 4), (51, 62), (94, 62)], canvas.color)
    canvas.polygon([(40, 14), (40, 62), (8, 62)], canvas.tint)
    canvas.polygon([(3, 68), (97, 68), (80, 96), (20, 96)], canvas.color)
    canvas.polygon([(7, 75), (93, 75), (90, 80.5), (10, 80.5)], WHITE)


VEHICLES = {"car": car, "boat": boat}
