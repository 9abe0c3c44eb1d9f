"""The colours of methods on the page, light and dark, from the one that a method names."""

import colorsys
from dataclasses import dataclass

# The `--raised` of page.css, light and dark: of its two grounds the one nearer to the colours that stand on it.
LIGHT_GROUND, DARK_GROUND = "#f5f6f8", "#1d2026"
_LEAST = {LIGHT_GROUND: 3.0, DARK_GROUND: 4.5}  # contrast; WCAG 2 asks 3 for marks, and thin lines on dark need more
_GREY = 0.15  # saturation below which a colour is a grey, which turns around: black is drawn white on dark
_STEP = 0.01  # of lightness: finer than the eye; chosen, not measured


@dataclass(frozen=True)
class Shades:
    """A colour, "#rrggbb", as it is drawn on the light and on the dark page."""

    light: str
    dark: str


def shades(colour: str) -> Shades:
    """The nearest shades of `colour`, "#rrggbb", that stand out from the ground."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_channels(colour))
    light, dark = lightness, min(0.92, 1 - lightness) if saturation < _GREY else lightness
    while contrast(_hex(hue, light, saturation), LIGHT_GROUND) < _LEAST[LIGHT_GROUND]:
        light -= _STEP
    while contrast(_hex(hue, dark, saturation), DARK_GROUND) < _LEAST[DARK_GROUND]:
        dark += _STEP
    return Shades(colour if light == lightness else _hex(hue, light, saturation), _hex(hue, dark, saturation))


def contrast(colour: str, ground: str) -> float:
    """As WCAG 2 defines it, 1 to 21."""
    low, high = sorted((_luminance(colour), _luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _channels(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _hex(hue: float, lightness: float, saturation: float) -> str:
    lightness = min(1.0, max(0.0, lightness))
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, lightness, saturation))
