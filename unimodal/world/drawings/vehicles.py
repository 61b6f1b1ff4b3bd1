"""Things that move."""

from __future__ import annotations

from unimodal.world.drawings.canvas import BARK, CREAM, FIRE, GLASS, INK, STEEL, WHITE, Canvas


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


def bus(canvas: Canvas) -> None:
    canvas.rectangle(3, 14, 97, 84, canvas.color, radius=10)
    for left in (10, 31, 52):
        canvas.rectangle(left, 25, left + 16, 45, GLASS, radius=3)
    canvas.rectangle(73, 25, 91, 74, GLASS, radius=3)
    canvas.rectangle(81, 25, 83, 74, canvas.shade)
    canvas.rectangle(3, 54, 67, 59, WHITE)
    for x in (24, 74):
        _wheel(canvas, x, 84, 12)


def train(canvas: Canvas) -> None:
    canvas.rectangle(68, 10, 80, 40, STEEL)
    canvas.polygon([(62, 4), (86, 4), (81, 16), (67, 16)], INK)
    canvas.rectangle(6, 16, 42, 74, canvas.color)
    canvas.rectangle(2, 10, 47, 19, canvas.shade, radius=3)
    canvas.rectangle(13, 27, 34, 47, GLASS, radius=3)
    canvas.rectangle(36, 36, 92, 72, canvas.color, radius=12)
    canvas.rectangle(52, 36, 58, 72, CREAM)
    canvas.polygon([(84, 78), (98, 92), (84, 92)], STEEL)
    canvas.rectangle(4, 68, 92, 80, canvas.shade)
    _wheel(canvas, 23, 81, 15)
    for x in (54, 77):
        _wheel(canvas, x, 85, 11)


def plane(canvas: Canvas) -> None:
    canvas.polygon([(3, 16), (15, 16), (32, 46), (10, 52)], canvas.color)
    canvas.polygon([(38, 44), (52, 14), (64, 14), (68, 44)], canvas.shade)
    canvas.blob([(5, 52), (20, 42), (60, 38), (84, 41), (98, 54), (88, 63), (50, 66), (16, 61)], canvas.color)
    canvas.polygon([(38, 54), (68, 54), (40, 90), (24, 90)], canvas.shade)
    canvas.blob([(77, 43), (86, 44), (91, 50), (77, 51)], GLASS)
    for x in (32, 44, 56, 67):
        canvas.circle(x, 48, 3.8, GLASS)


def rocket(canvas: Canvas) -> None:
    canvas.blob([(50, 97), (40, 86), (42, 78), (58, 78), (60, 86)], FIRE)
    canvas.polygon([(32, 50), (10, 74), (14, 92), (36, 78)], canvas.shade)
    canvas.polygon([(68, 50), (90, 74), (86, 92), (64, 78)], canvas.shade)
    canvas.blob([(50, 3), (66, 18), (74, 45), (66, 80), (34, 80), (26, 45), (34, 18)], canvas.color)
    canvas.blob([(50, 3), (61, 12), (65, 20), (50, 22), (35, 20), (39, 12)], WHITE)
    canvas.circle(50, 40, 12.5, WHITE)
    canvas.circle(50, 40, 9, GLASS)
    canvas.rectangle(31, 66, 69, 71, WHITE)


VEHICLES = {"car": car, "boat": boat, "bus": bus, "train": train, "plane": plane, "rocket": rocket}
