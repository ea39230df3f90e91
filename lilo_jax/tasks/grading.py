"""Comparing an answer with the gold one."""

import fractions
import re

_NUMBER = re.compile(r"[+-]?(\d+(,\d{3})*(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?(/\d+)?")


def as_number(text: str) -> fractions.Fraction | None:
    """The exact value of a plain decimal, exponent or fraction ("1,234", "-.5", "1e3", "3/4"), or None."""
    text = text.strip()
    if len(text) > 100 or not _NUMBER.fullmatch(text):
        return None
    numerator, _, denominator = text.replace(",", "").partition("/")
    if denominator and not int(denominator):
        return None
    return fractions.Fraction(numerator) / int(denominator or 1)


def same_answer(gold: str, response: str) -> bool:
    """Equal as numbers if both are numbers, else equal as strings up to case and runs of white space."""
    numbers = as_number(gold), as_number(response)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return " ".join(gold.split()).casefold() == " ".join(response.split()).casefold()
