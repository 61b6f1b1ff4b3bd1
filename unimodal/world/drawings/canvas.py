"""A small drawing surface: shapes in percent of a box, drawn oversampled and reduced, so every edge is antialiased."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFilter, ImageFont

Rgb = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[str, Rgb] = {
    "red": (222, 38, 42),
    "orange": (250, 138, 22),
    "yellow": (255, 222, 40),
    "green": (48, 164, 66),
    "blue": (38, 104, 226),
    "purple": (132, 58, 188),
    "pink": (255, 138, 190),
    "brown": (126, 78, 42),
}
INK: Rgb = (34, 30, 44)
WHITE: Rgb = (255, 255, 255)
CREAM: Rgb = (255, 241, 214)
LEAF: Rgb = (92, 186, 72)
BARK: Rgb = (104, 66, 40)
CLAY: Rgb = (196, 110, 78)
STEEL: Rgb = (88, 92, 106)
FIRE: Rgb = (255, 190, 60)
GLASS: Rgb = (206, 236, 250)

_OVERSAMPLING = 4
_OUTLINE = 2.2  # percent of the box


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """The colour `share` of the way from `first` to `second`, `share` in [0, 1]."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Canvas:
    """A square of 100 × 100 units, y down. `color` is the thing's own colour, `text` the word it carries, if any."""

    def __init__(self, pixels: int, color: Rgb = INK, text: str | None = None) -> None:
        self.color = color
        self.shade = mix(color, BARK, 0.3)
        self.tint = mix(color, WHITE, 0.35)
        self.text = text
        self._scale = pixels * _OVERSAMPLING / 100
        self._image = Image.new("RGBA", (pixels * _OVERSAMPLING, pixels * _OVERSAMPLING), (*color, 0))
        self._draw = ImageDraw.Draw(self._image)

    def _points(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def polygon(self, points: Sequence[Point], fill: Rgb) -> None:
        self._draw.polygon(self._points(points), fill=fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Rgb, radius: float = 0) -> None:
        box = self._points([(left, top), (right, bottom)])
        self._draw.rounded_rectangle(box, radius=radius * self._scale, fill=fill)

    def ellipse(self, x: float, y: float, width: float, height: float, fill: Rgb) -> None:
        """An ellipse around (x, y); `width` and `height` are the half axes."""
        self._draw.ellipse(self._points([(x - width, y - height), (x + width, y + height)]), fill=fill)

    def circle(self, x: float, y: float, radius: float, fill: Rgb) -> None:
        self.ellipse(x, y, radius, radius, fill)

    def pie(self, x: float, y: float, radius: float, start: float, end: float, fill: Rgb, height: float = 0) -> None:
        """A slice from `start` to `end` degrees, clockwise from the right; `height` is the vertical half axis."""
        box = self._points([(x - radius, y - (height or radius)), (x + radius, y + (height or radius))])
        self._draw.pieslice(box, start, end, fill=fill)

    def line(self, points: Sequence[Point], width: float, fill: Rgb) -> None:
        """A polyline with round ends and joints."""
        self._draw.line(self._points(points), fill=fill, width=max(round(width * self._scale), 1), joint="curve")
        for x, y in (points[0], points[-1]):
            self.circle(x, y, width / 2, fill)

    def curve(self, points: Sequence[Point], width: float, fill: Rgb) -> None:
        """A smooth line through the points."""
        self.line(_spline(points, closed=False), width, fill)

    def blob(self, points: Sequence[Point], fill: Rgb) -> None:
        """A smooth closed shape through the points."""
        self.polygon(_spline(points, closed=True), fill)

    def write(self, text: str, left: float, top: float, right: float, bottom: float, fill: Rgb) -> None:
        """The text as large as fits the rectangle, in its middle."""
        left, top, right, bottom = (v * self._scale for v in (left, top, right, bottom))
        size, unit = 100, ImageFont.load_default(size=100).getbbox(text, stroke_width=3)
        size = math.floor(size * min((right - left) / (unit[2] - unit[0]), (bottom - top) / (unit[3] - unit[1])))
        font, stroke = ImageFont.load_default(size=size), max(round(size * 0.03), 1)
        box = font.getbbox(text, stroke_width=stroke)
        corner = ((left + right - box[0] - box[2]) / 2, (top + bottom - box[1] - box[3]) / 2)
        self._draw.text(corner, text, fill=fill, font=font, stroke_width=stroke)

    def reduced(self, outline: bool) -> Image.Image:
        """The picture at its final size, RGBA; `outline` draws a thin dark line around the silhouette."""
        image = self._image
        if outline:
            # Where a blurred half plane falls to Φ(−1.5), it has grown by 1.5 standard deviations, round at corners.
            alpha = image.getchannel("A")
            width = max(_OUTLINE * self._scale, _OVERSAMPLING)
            grown = alpha.filter(ImageFilter.GaussianBlur(width / 1.5)).point([255 * (v >= 17) for v in range(256)])
            image = Image.composite(image, Image.new("RGBA", image.size, (*INK, 255)), alpha)
            image.putalpha(grown)
        return image.reduce(_OVERSAMPLING)


def _spline(points: Sequence[Point], closed: bool, steps: int = 12) -> list[Point]:
    """Catmull–Rom through the points."""
    knots = list(points)
    padded = [knots[-1], *knots, *knots[:2]] if closed else [knots[0], *knots, knots[-1]]
    result: list[Point] = [] if closed else [knots[0]]
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(1, steps + 1):
            t = step / steps
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True)) / 2 for axis in (0, 1))
            result.append((x, y))
    return result
