"""Backgrounds: two plain ones and four landscapes. Pale or dark, so that no thing's colour is lost on them."""

from __future__ import annotations

from collections.abc import Callable

from unimodal.world.drawings.canvas import WHITE, Canvas, Rgb, mix

_SKY: Rgb = (206, 233, 248)


def paper(canvas: Canvas) -> None:
    canvas.rectangle(0, 0, 100, 100, (250, 245, 232))


def slate(canvas: Canvas) -> None:
    canvas.rectangle(0, 0, 100, 100, (92, 100, 110))


def _cloud(canvas: Canvas, x: float, y: float, scale: float) -> None:
    for dx, dy, radius in ((-7, 1, 3.2), (0, -1, 4.8), (7, 1, 3.4)):
        canvas.circle(x + dx * scale, y + dy * scale, radius * scale, WHITE)
    canvas.rectangle(x - 8 * scale, y, x + 8 * scale, y + 4 * scale, WHITE, radius=2 * scale)


def meadow(canvas: Canvas) -> None:
    canvas.rectangle(0, 0, 100, 60, _SKY)
    canvas.ellipse(20, 70, 46, 18, (196, 226, 160))
    canvas.ellipse(84, 72, 44, 22, (184, 218, 146))
    canvas.rectangle(0, 62, 100, 100, (168, 210, 126))
    _cloud(canvas, 32, 13, 0.9)
    _cloud(canvas, 70, 22, 0.7)
    for x, y in ((6, 70), (31, 66), (50, 94), (66, 71), (94, 95), (35, 97), (4, 93), (65, 97), (96, 68), (48, 70)):
        canvas.line([(x - 1.2, y - 2.4), (x, y), (x + 1.2, y - 2.4)], 0.6, (122, 176, 92))


def beach(canvas: Canvas) -> None:
    canvas.rectangle(0, 0, 100, 45, (222, 242, 250))
    canvas.rectangle(0, 40, 100, 70, (142, 212, 224))
    canvas.blob([(-5, 66), (20, 62), (50, 66), (80, 61), (106, 65), (110, 110), (-10, 110)], WHITE)
    canvas.blob([(-5, 69), (20, 65), (50, 69), (80, 64), (106, 68), (110, 110), (-10, 110)], (246, 228, 178))
    for x, y in ((18, 46), (50, 52), (82, 47), (33, 58), (67, 57)):
        canvas.curve([(x - 3, y), (x - 1.5, y - 1), (x, y), (x + 1.5, y - 1), (x + 3, y)], 0.6, WHITE)
    for x, y in ((6, 76), (34, 74), (50, 95), (66, 75), (95, 92), (35, 96), (5, 95), (66, 97), (50, 72)):
        canvas.circle(x, y, 0.8, (222, 198, 142))


def snow(canvas: Canvas) -> None:
    canvas.rectangle(0, 0, 100, 70, (196, 210, 226))
    for x, y in (
        (4, 8),
        (19, 28),
        (33, 6),
        (34, 40),
        (50, 24),
        (52, 3),
        (66, 14),
        (67, 44),
        (80, 31),
        (95, 5),
        (97, 46),
    ):
        canvas.circle(x, y, 0.9, WHITE)
    canvas.ellipse(18, 72, 50, 18, (224, 233, 243))
    canvas.ellipse(80, 74, 50, 16, (236, 242, 249))
    canvas.rectangle(0, 68, 100, 100, (247, 250, 254))
    for x, y in ((33, 80), (66, 74), (50, 94), (5, 96), (95, 92)):
        canvas.curve([(x - 5, y), (x, y - 1.2), (x + 5, y)], 0.7, (212, 224, 238))


def night(canvas: Canvas) -> None:
    for band in range(20):
        canvas.rectangle(0, band * 4, 100, band * 4 + 5, mix((20, 24, 62), (48, 52, 104), band / 19))
    canvas.ellipse(24, 84, 52, 18, (36, 42, 66))
    canvas.rectangle(0, 78, 100, 100, (28, 33, 52))
    canvas.ellipse(84, 88, 40, 16, (28, 33, 52))
    for x, y in (
        (4, 6),
        (30, 4),
        (33, 30),
        (50, 22),
        (66, 5),
        (68, 32),
        (96, 30),
        (5, 44),
        (49, 57),
        (95, 62),
        (33, 62),
    ):
        canvas.circle(x, y, 0.8, (250, 244, 200))
    canvas.circle(67, 17, 5.5, (252, 244, 206))
    canvas.circle(69.5, 15.5, 4.8, mix((20, 24, 62), (48, 52, 104), 0.2))


BACKGROUNDS: dict[str, Callable[[Canvas], None]] = {
    "paper": paper,
    "slate": slate,
    "meadow": meadow,
    "beach": beach,
    "snow": snow,
    "night": night,
}
