"""Times of day: 8:30, 8:30 a.m., 20:30, noon."""

import re

from lilo_jax.grading.answers import Time

HOUR = 3600
_TIME = re.compile(
    r"(?P<clock>(\d{1,2})(?::(\d\d)(?::(\d\d))?)?)\s?(?:(?P<half>[ap])\.?\s?m\.?|(?P<word>noon|midnight)|o'clock)?",
    re.IGNORECASE,
)
_NAMED = {"noon": "12 noon", "midnight": "12 midnight"}
_HALF = {"a": 0, "midnight": 0, "p": 12 * HOUR, "noon": 12 * HOUR}


def time_of_day(text: str) -> Time | None:
    """The time that a normalised text is; None for anything else, such as a number or 8:3."""
    text = text.replace("{:}", ":")
    found = _TIME.fullmatch(_NAMED.get(text.casefold(), text))
    if not found or found["clock"] == found[0]:
        return _unmarked(found) if found and ":" in found[0] else None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:4])
    half = _HALF.get((found["half"] or found["word"] or "").casefold())
    if half is None:  # o'clock
        return _unmarked(found)
    if not 1 <= hours <= 12 or max(minutes, seconds) > 59:
        return None
    return Time(found["clock"], half + hours % 12 * HOUR + 60 * minutes + seconds, marked=True)


def same_time(one: Time, other: Time) -> bool:
    """Whether two times are the same, as far as both say; 20:30 says that it is not in the morning."""
    if one.marked == other.marked:
        return one.seconds == other.seconds
    marked, bare = (one, other) if one.marked else (other, one)
    if HOUR <= bare.seconds < 13 * HOUR:
        return marked.seconds % (12 * HOUR) == bare.seconds % (12 * HOUR)
    return marked.seconds == bare.seconds


def _unmarked(found: re.Match[str]) -> Time | None:
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:4])
    if hours > 23 or max(minutes, seconds) > 59:
        return None
    return Time(found["clock"], hours * HOUR + 60 * minutes + seconds, marked=False)
