"""Animals."""

from __future__ import annotations

from unimodal.world.drawings.canvas import FIRE, INK, WHITE, Canvas


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


def dog(canvas: Canvas) -> None:
    canvas.curve([(12, 64), (4, 52), (6, 40)], 8, canvas.color)
    canvas.rectangle(8, 52, 70, 76, canvas.color, radius=12)
    for left in (9, 25, 46, 60):
        canvas.rectangle(left, 64, left + 11, 97, canvas.color, radius=4)
    for left in (9, 25, 46, 60):
        canvas.rectangle(left, 90, left + 11, 97, WHITE, radius=4)
    canvas.blob([(46, 24), (58, 9), (76, 10), (96, 34), (96, 47), (80, 54), (60, 58), (48, 46)], canvas.color)
    canvas.blob([(78, 38), (96, 34), (96, 47), (82, 51)], WHITE)
    canvas.blob([(48, 14), (60, 12), (60, 30), (54, 50), (42, 48), (38, 30)], canvas.shade)
    canvas.rectangle(48, 56, 71, 62, WHITE)
    _eye(canvas, 72, 27, 6.5)
    canvas.circle(93, 35, 5, INK)


def rabbit(canvas: Canvas) -> None:
    for x, lean in ((38, -7), (62, 7)):
        ear = [(x, 46), (x - 9 + lean / 2, 22), (x + lean, 3), (x + 9 + lean / 2, 22)]
        canvas.blob(ear, canvas.color)
        canvas.ellipse(x + lean / 2, 22, 3.5, 13, WHITE)
    canvas.ellipse(50, 80, 30, 17, canvas.color)
    canvas.ellipse(50, 85, 14, 12, WHITE)
    canvas.ellipse(50, 51, 29, 22, canvas.color)
    _eye(canvas, 38, 47, 6.5)
    _eye(canvas, 62, 47, 6.5)
    canvas.ellipse(43, 60, 7.5, 5.5, WHITE)
    canvas.ellipse(57, 60, 7.5, 5.5, WHITE)
    canvas.ellipse(50, 56, 4, 3, INK)
    canvas.rectangle(46.5, 62, 53.5, 70, WHITE)
    for x in (28, 72):
        canvas.ellipse(x, 92, 13, 5.5, canvas.tint)


def bird(canvas: Canvas) -> None:
    canvas.line([(46, 84), (46, 96), (54, 96)], 3, FIRE)
    canvas.line([(58, 84), (58, 96), (66, 96)], 3, FIRE)
    canvas.polygon([(30, 62), (2, 34), (3, 60), (14, 72)], canvas.shade)
    canvas.polygon([(84, 18), (98, 30), (84, 36)], FIRE)
    body = [(48, 38), (52, 14), (70, 5), (88, 16), (88, 44), (82, 74), (56, 89), (26, 78), (12, 58)]
    canvas.blob(body, canvas.color)
    canvas.blob([(84, 46), (80, 72), (58, 84), (70, 62)], WHITE)
    canvas.blob([(22, 50), (48, 44), (64, 54), (56, 70), (36, 68)], canvas.shade)
    _eye(canvas, 72, 22, 7)


def turtle(canvas: Canvas) -> None:
    canvas.blob([(72, 66), (76, 44), (84, 34), (96, 38), (97, 52), (88, 60), (86, 76)], canvas.tint)
    canvas.polygon([(14, 68), (2, 80), (20, 80)], canvas.tint)
    for left in (16, 60):
        canvas.rectangle(left, 70, left + 17, 91, canvas.tint, radius=5)
    canvas.pie(44, 74, 39, 180, 360, canvas.color, height=61)
    canvas.rectangle(3, 68, 85, 79, canvas.shade, radius=5)
    for points in (
        [(37, 26), (52, 26), (58, 44), (45, 54), (31, 44)],
        [(22, 46), (33, 56), (30, 66), (12, 66)],
        [(67, 46), (56, 56), (59, 66), (77, 66)],
    ):
        canvas.polygon(points, canvas.shade)
    _eye(canvas, 88, 44, 5)


ANIMALS = {"cat": cat, "fish": fish, "dog": dog, "rabbit": rabbit, "bird": bird, "turtle": turtle}
