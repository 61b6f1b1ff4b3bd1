"""Animals."""

from __future__ import annotations

from unimodal.world.drawings.canvas import INK, WHITE, Canvas


def _eye(canvas: Canvas, x: float, y: float, radius: float) -> None:
    canvas.circle(x, y, radius, WHITE)
    canvas.circle(x + radius * 0.15, y + radius * 0.1, radius * 0.58, INK)


def cat(canvas: Canvas) -> None:
    canvas.curve([(66, 88), (86, 86), (92, 68), (86, 54)], 9, canvas.color)
    canvas.blob([(50, 40), (72, 62), (76, 92), (50, 97), (24, 92), (28, 62)], canvas.color)
    canvas.ellipse(50, 80, 12, 15, WHITE)
    canvas.polygon([(14, 3), (14, 34), (44, 14)], canvas.color)
    canvas.polygon([(86, 3), (86, 34), (56, 14)], canvas.color)
    canvas.ellipse(50, 34, 38, 26, canvas.color)
    canvas.polygon([(19, 11), (19, 22), (31, 15)], WHITE)
    canvas.polygon([(81, 11), (81, 22), (69, 15)], WHITE)
    _eye(canvas, 34, 31, 8)
    _eye(canvas, 66, 31, 8)
    canvas.polygon([(45, 42), (55, 42), (50, 47)], INK)
    canvas.curve([(39, 50), (45, 53), (50, 47), (55, 53), (61, 50)], 2.4, INK)


def fish(canvas: Canvas) -> None:
    canvas.polygon([(70, 50), (97, 17), (90, 50), (97, 83)], canvas.color)
    canvas.blob([(34, 27), (52, 8), (64, 30)], canvas.shade)
    canvas.blob([(36, 74), (52, 92), (60, 72)], canvas.shade)
    canvas.blob([(3, 52), (16, 29), (42, 21), (66, 34), (80, 50), (66, 67), (42, 79), (16, 73)], canvas.color)
    canvas.curve([(38, 28), (44, 50), (38, 72)], 5, WHITE)
    canvas.curve([(56, 33), (61, 50), (56, 67)], 5, WHITE)
    _eye(canvas, 22, 44, 7.5)
    canvas.curve([(9, 62), (15, 63), (20, 59)], 2.4, INK)


ANIMALS = {"cat": cat, "fish": fish}
