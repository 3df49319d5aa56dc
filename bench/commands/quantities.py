"""Amounts as people read them: times, sizes, compute, each in the unit that suits it."""

from __future__ import annotations

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def time_text(seconds: float) -> str:
    """`under a minute`, `12 minutes`, `3.4 hours`, `7.6 days`."""
    if seconds < MINUTE:
        return "under a minute"
    for unit, size, largest in (("minute", MINUTE, 90), ("hour", HOUR, 48)):
        if seconds < largest * size:
            number = figure(seconds / size) if size > MINUTE else f"{seconds / size:.0f}"
            return f"{number} {unit}{'' if number == '1' else 's'}"
    return f"{seconds / DAY:,.1f} days"


def short_time(seconds: float) -> str:
    """`< 1 min`, `12 min`, `3.4 h`, `7.6 days`, for a table; `0` for none at all."""
    if not seconds:
        return "0"
    text = time_text(seconds).replace("under a minute", "< 1 min")
    for long, short in ((" minutes", " min"), (" minute", " min"), (" hours", " h"), (" hour", " h")):
        text = text.replace(long, short)
    return text


def duration(seconds: float) -> str:
    """As on a clock: `M:SS`, `H:MM:SS`, or with days before it, `D-HH:MM:SS`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days}-{hours_of_day:02}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def size_text(number: float) -> str:
    """`944 GB`, of bytes."""
    return _scaled(number / 1e3, ("kB", "MB", "GB"))


def flop_text(tflop: float) -> str:
    """`182.228 TFLOP`, with enough digits to check arithmetic."""
    return _scaled(tflop * 1e6, ("MFLOP", "GFLOP", "TFLOP", "PFLOP"), "{:,.6g}")


def macs_text(gmacs: float) -> str:
    """`118.638 GMACs`, likewise."""
    return _scaled(gmacs * 1e3, ("MMACs", "GMACs"), "{:,.6g}")


def figure(value: float) -> str:
    """Three digits, or all before the point; `<0.01` for what is hardly anything."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scaled(value: float, units: tuple[str, ...], form: str | None = None) -> str:
    """A value in the first of the units, a factor of 1000 apart, in the largest of them that leaves it above 1."""
    for unit in units:
        if value < 1000 or unit == units[-1]:
            return f"{form.format(value) if form else figure(value)} {unit}"
        value /= 1000
    raise AssertionError
