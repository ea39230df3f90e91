"""What settings may be, declared on the fields themselves (`learning_rate: Positive = 1e-3`), and how that is checked.

A field's annotation is all there is to know: its type, the names that it may be (`Literal`), and its bounds.  What no
field needs to say: a number is finite, and a whole one below 2^31.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Interval, Le, Lt, MultipleOf

from lilo_jax.errors import UsageError, unknown_name

Whole = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
Generated = Annotated[int, Interval(ge=1, le=1_000_000)]
"""How many questions a generator makes: it keeps them all in memory, and must find as many different ones."""

Number = Annotated[float, Interval(gt=-math.inf, lt=math.inf)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
ShareBelowOne = Annotated[float, Interval(ge=0, lt=1)]

TOO_LARGE = 2**31
"""Sizes and counts are int32 in the programs."""
LARGEST_FLOAT = 3.4028235e38
"""Numbers are float32 there."""
MOST_SHOWN = 60
"""Characters of a value in a message."""

T = TypeVar("T")
Path = tuple[str, ...]
Naming = Callable[[Path], str]
"""What a field is called in a message: an option of the command line, or its place in a file."""


def option(path: Path) -> str:
    """The option of the command line that sets the field."""
    return "--" + ".".join(path).replace("_", "-")


def check(settings: Any, naming: Naming = option, path: Path = ()) -> None:
    """Raises `UsageError`, in one sentence, at the first field of a dataclass that is not what it declares to be.

    Args:
        settings: with all settings inside of it.
        naming: names a field.
        path: of `settings` itself.
    """
    cls: Any = type(settings)
    for name, kind in annotations(cls).items():
        check_value(getattr(settings, name), kind, naming, (*path, name))


def check_value(value: Any, kind: Any, naming: Naming, path: Path) -> None:
    """The same for the value of one field, of a declared kind."""
    wanted = unlike(value, kind)
    if wanted is not None:
        raise UsageError(f"{naming(path)} must be {wanted}, got {shown(value)}")
    if dataclasses.is_dataclass(value):
        check(value, naming, path)


def build(cls: type[T], values: Any, naming: Naming, path: Path = ()) -> T:
    """Settings of a class from what JSON holds, where an object stands for settings and a list for a tuple.

    Raises `UsageError` as `check` does, and at a field that the class does not have.
    """
    of_class: Any = cls
    known, built = annotations(of_class), {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{naming(path)} must be an object, got {shown(values)}")
    for name, value in values.items():
        if name not in known:
            raise unknown_name(f"field of {naming(path)}", name, known)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(known[name]):
            value = build(known[name], value, naming, (*path, name))
        elif isinstance(value, list):
            value = tuple(value)
        check_value(value, known[name], naming, (*path, name))
        built[name] = value
    try:
        return cls(**built)
    except (TypeError, ValueError) as error:  # a field without a default, or what a class of a user's demands
        raise UsageError(f"{naming(path)}: {error}") from None


@functools.cache
def annotations(cls: type) -> dict[str, Any]:
    """Field to annotation of a dataclass."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def unlike(value: Any, kind: Any) -> str | None:
    """What `value` would have to be to be of this kind, in words; None if it is."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return unlike(value, parts[0]) or _outside(value, list(bounds(kind)))
    if origin is Literal:
        known = any(type(value) is type(choice) and value == choice for choice in parts)
        return None if known else f"one of {', '.join(map(repr, parts))}"
    if origin in (Union, types.UnionType):
        wanted = [unlike(value, part) for part in parts]
        return None if None in wanted else " or ".join(map(str, wanted))
    if origin is tuple:
        return _unlike_tuple(value, parts)
    return PLAIN.get(kind, _unlike_class)(value, kind)


def _unlike_tuple(value: Any, parts: tuple[Any, ...]) -> str | None:
    if not isinstance(value, tuple):
        return "a tuple"
    kinds = parts[:1] * len(value) if parts[1:] == (...,) else parts
    if len(kinds) != len(value):
        return f"a tuple of {len(kinds)}"
    wanted = next(filter(None, map(unlike, value, kinds)), None)
    return wanted and f"a tuple, each {wanted}"


def _unlike_class(value: Any, kind: Any) -> str | None:
    """Classes are told apart; what else an annotation may be is taken as it comes."""
    is_class = isinstance(kind, type) and kind is not Any and not getattr(kind, "_is_protocol", False)
    if not is_class or isinstance(value, kind):
        return None
    return f"settings with the fields of {kind.__name__}"


def _unlike_int(value: Any, kind: Any) -> str | None:
    if type(value) is not int:
        return "a whole number"
    return None if -TOO_LARGE < value < TOO_LARGE else f"a whole number below {TOO_LARGE}"


def _unlike_float(value: Any, kind: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and abs(value) <= LARGEST_FLOAT else "a finite number"


def _unlike_bool(value: Any, kind: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _unlike_text(value: Any, kind: Any) -> str | None:
    """Text that can be written: no half of a surrogate pair, and no NUL, which no path may hold."""
    if not isinstance(value, str):
        return "text"
    broken = any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    return "text without NUL or half a surrogate" if broken else None


PLAIN: dict[Any, Callable[[Any, Any], str | None]] = {
    int: _unlike_int,
    float: _unlike_float,
    bool: _unlike_bool,
    str: _unlike_text,
}


# ------------------------------------------------------------------------------------------------------------- bounds
def bounds(kind: Any) -> Iterator[BaseMetadata]:
    """The bounds that an annotation declares, an interval as its two ends."""
    for found in getattr(kind, "__metadata__", ()):
        ends = found if isinstance(found, GroupedMetadata) else [found]
        yield from (end for end in ends if isinstance(end, BaseMetadata))


_HOLDS: dict[type, tuple[str, Callable[[Any, Any], bool]]] = {
    Ge: ("at least {0.ge}", lambda value, bound: value >= bound.ge),
    Gt: ("above {0.gt}", lambda value, bound: value > bound.gt),
    Le: ("at most {0.le}", lambda value, bound: value <= bound.le),
    Lt: ("below {0.lt}", lambda value, bound: value < bound.lt),
    MultipleOf: ("a multiple of {0.multiple_of}", lambda value, bound: value % bound.multiple_of == 0),
}


def _outside(value: Any, declared: list[BaseMetadata]) -> str | None:
    if all(_HOLDS[type(bound)][1](value, bound) for bound in declared):
        return None
    return " and ".join(_HOLDS[type(bound)][0].format(bound) for bound in declared)


def shown(value: Any) -> str:
    """A value in a message, cut if it is long."""
    try:
        text = ascii(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of too many digits"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
