"""What checks the signatures of the pure modules in tests: shapes, dtypes and types of what goes in and comes out."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_typed = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def checked(function: Callable) -> Callable:
    """The function with its signature checked at every call, but for what makes an object.

    Structs hold not only arrays: JAX puts shapes, tracers and layouts into them as well.
    """
    return function if function.__name__ == "__init__" else _typed(function)
