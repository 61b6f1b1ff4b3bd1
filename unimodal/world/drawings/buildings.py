"""Buildings and street furniture."""

from __future__ import annotations

from unimodal.world.drawings.canvas import CREAM, GLASS, INK, WHITE, Canvas


def house(canvas: Canvas) -> None:
    canvas.rectangle(68, 10, 80, 40, canvas.shade)
    canvas.rectangle(12, 44, 88, 97, canvas.color)
    canvas.polygon([(50, 4), (98, 50), (2, 50)], canvas.shade)
    canvas.rectangle(2, 47, 98, 51, WHITE)
    canvas.rectangle(54, 62, 74, 97, CREAM)
    canvas.circle(59, 80, 2.5, INK)
    canvas.rectangle(22, 61, 44, 81, WHITE)
    canvas.rectangle(24, 63, 42, 79, GLASS)
    canvas.rectangle(32, 61, 34, 81, WHITE)
    canvas.rectangle(22, 70, 44, 72, WHITE)


BUILDINGS = {"house": house}
