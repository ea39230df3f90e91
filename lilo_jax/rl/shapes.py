"""What a signature says of shapes, held to also where no test checks signatures."""

from lilo_jax.types import Array


def same_shape(*arrays: Array) -> None:
    """Raises `ValueError` unless all have one shape: what is broadcast by mistake is wrong in silence."""
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1:
        raise ValueError(f"arrays of one shape are needed, got {', '.join(map(str, shapes))}")
