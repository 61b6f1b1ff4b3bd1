"""Toys and plain shapes."""

from __future__ import annotations

import math

from unimodal.world.drawings.canvas import BARK, INK, WHITE, Canvas


def star(canvas: Canvas) -> None:
    points = [
        (50 + r * math.sin(math.pi * i / 5), 53 - r * math.cos(math.pi * i / 5))
        for i, r in ((i, 24 if i % 2 else 49) for i in range(10))
    ]
    canvas.polygon(points, canvas.color)
    for i in range(0, 10, 2):
        canvas.polygon([(50, 53), points[i], points[i - 1]], canvas.tint)


def ball(canvas: Canvas) -> None:
    canvas.circle(50, 50, 47, canvas.color)
    canvas.blob([(4, 42), (28, 36), (72, 36), (96, 42), (96, 58), (72, 64), (28, 64), (4, 58)], WHITE)
    canvas.circle(50, 50, 9, canvas.color)
    canvas.blob([(24, 24), (34, 14), (40, 15), (32, 26)], canvas.tint)


def kite(canvas: Canvas) -> None:
    canvas.curve([(50, 72), (40, 80), (56, 88), (70, 90), (82, 96)], 3.5, INK)
    canvas.polygon([(50, 3), (90, 36), (50, 80), (10, 36)], canvas.color)
    canvas.polygon([(50, 3), (90, 36), (50, 36)], canvas.tint)
    canvas.polygon([(10, 36), (50, 36), (50, 80)], canvas.tint)
    canvas.line([(50, 5), (50, 78)], 2.5, WHITE)
    canvas.line([(12, 36), (88, 36)], 2.5, WHITE)
    canvas.polygon([(60, 80), (60, 96), (78, 82), (78, 98)], canvas.color)


def heart(canvas: Canvas) -> None:
    outline = [(50, 24), (62, 9), (82, 9), (96, 26), (92, 48), (74, 72)]
    canvas.blob([*outline, (50, 94), *[(100 - x, y) for x, y in outline[:0:-1]]], canvas.color)
    canvas.blob([(15, 32), (22, 20), (32, 17), (26, 28), (20, 42)], WHITE)


def umbrella(canvas: Canvas) -> None:
    canvas.line([(50, 5), (50, 84)], 4.5, BARK)
    canvas.curve([(50, 82), (52, 93), (61, 95), (67, 86)], 4.5, BARK)
    canvas.pie(50, 58, 47, 180, 360, canvas.color, height=49)
    canvas.pie(50, 58, 17, 180, 360, canvas.tint, height=49)
    for x, radius in ((18.5, 14.5), (50, 17), (81.5, 14.5)):
        canvas.pie(x, 58, radius, 0, 180, canvas.tint if x == 50 else canvas.color, height=6)


SHAPES = {"star": star, "ball": ball, "kite": kite, "heart": heart, "umbrella": umbrella}
