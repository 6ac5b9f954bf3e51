"""PSNR against latency, drawn as SVG."""

from __future__ import annotations

import math
from html import escape

from ghostsr_ext.benchmark import Comparison

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 180, 24, 45


def scatter_svg(comparison: Comparison) -> str:
    """Draw one point a network: latency to the right, PSNR upwards.

    Args:
        comparison: Measurements with PSNR; networks whose PSNR is infinite are left out.
    """
    points = [
        (network.name, network.timing.median * 1e3, network.psnr)
        for network in comparison.networks
        if network.psnr is not None and math.isfinite(network.psnr)
    ]
    times = [time for _, time, _ in points]
    levels = [level for _, _, level in points]
    right = _round_number_above(max(times, default=1.0))
    bottom = math.floor(min(levels, default=0.0) * 5 - 0.5) / 5
    top = math.ceil(max(levels, default=1.0) * 5 + 0.5) / 5

    def x(time: float) -> float:
        return _LEFT + time / right * (_WIDTH - _LEFT - _RIGHT)

    def y(level: float) -> float:
        return _TOP + (top - level) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="PSNR against latency">',
        f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{_WIDTH - _RIGHT}"/>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "milliseconds a picture</text>",
        f'<text x="{_LEFT}" y="{_TOP - 10}" text-anchor="middle">dB</text>',
    ]
    for fraction in (0.0, 0.5, 1.0):
        time, level = right * fraction, bottom + (top - bottom) * fraction
        parts.append(
            f'<text x="{x(time):.1f}" y="{floor + 16}" text-anchor="middle">{time:g}</text>'
        )
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y(level) + 4:.1f}" text-anchor="end">{level:.1f}</text>'
        )
    for name, time, level in points:
        parts.append(
            f'<circle cx="{x(time):.1f}" cy="{y(level):.1f}" r="5"/>'
            f'<text x="{x(time) + 10:.1f}" y="{y(level) + 4:.1f}">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>"


def _round_number_above(value: float) -> float:
    """Return the least number that is short to write, as is its half, and not below ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    starts = 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10
    return next(start * power for start in starts if start * power >= value)
