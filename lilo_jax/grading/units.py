"""Units of measurement and currencies, and what each is also called."""

import re

_NAMES = {
    "millimeter": "mm millimeters millimetre millimetres",
    "centimeter": "cm centimeters centimetre centimetres",
    "meter": "m meters metre metres",
    "kilometer": "km kilometers kilometre kilometres",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yards",
    "mile": "mi miles",
    "gram": "g grams",
    "milligram": "mg milligrams",
    "kilogram": "kg kilograms",
    "ounce": "oz ounces",
    "ton": "tons tonne tonnes",
    "liter": "L l liters litre litres",
    "milliliter": "mL ml milliliters millilitre millilitres",
    "gallon": "gal gallons",
    "second": "s sec secs seconds",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "yr yrs years",
    "degree": "\\degree degrees",
    "dollar": "\\dollar dollars USD usd bucks",
    "cent": "cents",
    "euro": "\\euro euros EUR eur",
    "pound": "pounds lb lbs \\pound GBP gbp",
    "yen": "\\yen JPY",
    "radian": "rad radians",
    "newton": "N newtons",
    "joule": "J joules",
    "watt": "W watts",
    "volt": "V volts",
    "ampere": "A amperes amps",
    "kelvin": "K kelvins",
    "hertz": "Hz hz",
    "mole": "mol moles",
    "celsius": "",
    "fahrenheit": "",
    "unit": "units",
}
UNITS = {name: canonical for canonical, names in _NAMES.items() for name in [canonical, *names.split()]}
"""Every spelling to the one name."""
_SHORT = {"mph": "mile/hour", "kph": "kilometer/hour", "kmh": "kilometer/hour"}

_CURRENCY = re.compile(r"\s*([-+]?)\s*\\(dollar|euro|pound|yen)\s*(?=[-+\d.\\(])")
_ONE = r"\\?[A-Za-z°]+"
_POWER = r"(?:\s?\^\s?\{?-?\d\}?)?"
_UNIT = re.compile(
    rf"(?<=[\d)}}\s])\s*((?:(?:square|sq\.?|cubic|cu\.?)\s)?{_ONE}{_POWER}"
    rf"(?:(?:\s?[/·]\s?|\s?\\cdot\s?|\sper\s|\s){_ONE}{_POWER})*)$"
)
_BASE = re.compile(r"(?<=\d)_\{?(?:\\text\{)?(\d+|[a-z]+)\}?$")
_NUMERAL = re.compile(
    r"[-+\d.,/ ]+|[-+]?(?:\d+ ?)?\\frac\{-?\d+\}\{\d+\}|[-+\d.,]+\s?(?:\\times|\\cdot)\s?10\^\{?-?\d+\}?"
)


def split_unit(text: str) -> tuple[str, str]:
    """A normalised answer without its unit, and the unit's canonical name ("" if there is none).

    Behind a plain number any words count as a unit ("12 apples"); behind anything else only known ones.  The base of
    a numeral ("101_2") is treated as its unit.
    """
    if currency := _CURRENCY.match(text):
        rest = text[currency.end() :]
        return currency[1] + split_unit(rest)[0], UNITS["\\" + currency[2]]
    if base := _BASE.search(text):
        return text[: base.start()], f"base {base[1]}"
    found = _UNIT.search(text)
    if not found or not text[: found.start()].strip():
        return text, ""
    head, name = text[: found.start()].rstrip(), found[1]
    known = _canonical(name)
    if len(re.sub(r"\W|\d", "", name)) == 1 and not re.fullmatch(
        r"[-+\d.,]+\s", text[: found.start()] + text[len(head)]
    ):
        return text, ""  # 3m and (a+b) h are products; 3 m is not
    if known is None:
        if not (text[len(head)].isspace() and _NUMERAL.fullmatch(head)) or not re.fullmatch(
            r"[A-Za-z]{2,}(?: [A-Za-z]+)*", name
        ):
            return text, ""
        known = re.sub(r"(?<=ch|sh|ss)es$|(?<=x)es$|(?<=[a-z])s$", "", name.casefold().split()[-1])
    return head, known


def spelt_out(name: str) -> str:
    """The full name of a unit of one letter, which in a formula would be a variable; anything else as it is."""
    word, power = re.fullmatch(r"\s*([A-Za-z]?)(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{UNITS[word]}{power}" if word in UNITS and not power.strip(" ^23{}") else name


def _canonical(name: str) -> str | None:
    """The canonical name of a unit, its powers and quotients included; None if a part of it is unknown."""
    name = re.sub(r"\b(?:square|sq\.?)\s(\S+)", r"\1^2", name)
    name = re.sub(r"\b(?:cubic|cu\.?)\s(\S+)", r"\1^3", name)
    name = re.sub(r"\s?\^\s?\{?(-?\d)\}?", r"^\1", _SHORT.get(name, name))
    powers: dict[str, int] = {}
    above, *below = re.split(r"\s?/\s?|\bper\s", name)  # all behind the first stroke is below it
    for sign, part in ((1, above), *((-1, part) for part in below)):
        for factor in filter(None, re.split(r"\s?·\s?|\s?\\cdot\s?|\s+", part)):
            word, _, power = factor.partition("^")
            if word not in UNITS:
                return None
            powers[UNITS[word]] = powers.get(UNITS[word], 0) + sign * int(power or 1)
    return " ".join(unit if power == 1 else f"{unit}^{power}" for unit, power in sorted(powers.items()) if power)
