"""Toys and plain shapes."""

from __future__ import annotations

import math

from unimodal.world.drawings.canvas import INK, WHITE, Canvas


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


SHAPES = {"star": star, "ball": ball, "kite": kite}
