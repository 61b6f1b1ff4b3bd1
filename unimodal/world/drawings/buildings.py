"""Buildings and street furniture."""

from __future__ import annotations

from unimodal.world.drawings.canvas import BARK, CREAM, FIRE, GLASS, INK, WHITE, Canvas


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


def castle(canvas: Canvas) -> None:
    canvas.line([(50, 6), (50, 30)], 2.4, INK)
    canvas.polygon([(51, 3), (70, 9), (51, 15)], FIRE)
    canvas.rectangle(24, 44, 76, 97, canvas.color)
    canvas.rectangle(36, 26, 64, 60, canvas.color)
    for left in (36, 46.5, 57):
        canvas.rectangle(left, 20, left + 7, 28, canvas.color)
    for left in (4, 70):
        canvas.rectangle(left, 38, left + 26, 97, canvas.shade)
        for step in (0, 10, 20):
            canvas.rectangle(left - 2 + step, 28, left + 8 + step - 2, 40, canvas.shade)
        canvas.rectangle(left + 9, 50, left + 17, 66, CREAM, radius=4)
    canvas.rectangle(45, 34, 55, 50, CREAM, radius=5)
    canvas.pie(50, 78, 13, 180, 360, BARK)
    canvas.rectangle(37, 77, 63, 97, BARK)


def sign(canvas: Canvas) -> None:
    """A board on a post, with the thing's text."""
    canvas.rectangle(45, 60, 55, 97, BARK)
    canvas.rectangle(2, 12, 98, 70, canvas.color, radius=9)
    canvas.rectangle(6, 16, 94, 66, WHITE, radius=6)
    canvas.rectangle(8, 18, 92, 64, canvas.color, radius=4)
    if canvas.text:
        light = sum(canvas.color) > 390
        canvas.write(canvas.text, 11, 20, 89, 62, INK if light else WHITE)


BUILDINGS = {"house": house, "castle": castle, "sign": sign}
