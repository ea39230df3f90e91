"""Where the reference lies: on the devices, or in their host's memory until a step is scored by it."""

from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Key

from lilo_jax.device.layout import placed_shapes
from lilo_jax.models.packing import PackedRows
from lilo_jax.types import Metrics, PyTree, TrainBatch, TrainState

ReferencePlace = Literal["device", "host"]
HOST_MEMORY = "pinned_host"
"""JAX's name of that memory; CPUs have it as well, beside that of the device which they are themselves."""


def check_place(place: ReferencePlace, device: jax.Device) -> None:
    """Raises ValueError, naming the cure, if what rests there could not be fetched by the device."""
    if place == "host" and HOST_MEMORY not in {memory.kind for memory in device.addressable_memories()}:
        raise ValueError(
            f"--model.reference-place host needs devices that read their host's memory, and {device.device_kind} has "
            f"none of the kind {HOST_MEMORY}: leave it out, or take --model.reference-dtype bfloat16"
        )


def resting_layout(layout: PyTree, place: ReferencePlace) -> PyTree:
    """Shardings of the reference while nothing is scored by it, from those for scoring; None without a reference."""
    return layout if place == "device" else jax.tree.map(lambda spec: spec.with_memory_kind(HOST_MEMORY), layout)


def moved(layout: PyTree, state: TrainState) -> TrainState:
    """The state with its reference laid out so; what lies so already is not copied."""
    return state.replace(reference=jax.device_put(state.reference, layout))


class _Scoring(NamedTuple):
    """`Programs.prepare`, for which the reference is fetched."""

    program: jax.stages.Wrapped
    layout: PyTree

    def __call__(
        self, state: TrainState, batch: TrainBatch, plans: PackedRows | None = None
    ) -> tuple[TrainBatch, Metrics]:
        return self.program(moved(self.layout, state), batch, plans)

    def lower(self, state: TrainState, *rest: Any) -> jax.stages.Lowered:
        """Lowers it for shapes."""
        reference = state.reference and placed_shapes(state.reference, self.layout)
        return self.program.lower(state.replace(reference=reference), *rest)


class _Updating(NamedTuple):
    """`Programs.update`, in which the reference has no part; the rest of the state is given away."""

    program: jax.stages.Wrapped

    def __call__(
        self, state: TrainState, batch: TrainBatch, key: Key[jax.Array, ""], plans: PackedRows | None = None
    ) -> tuple[TrainState, Metrics]:
        new, metrics = self.program(state.replace(reference=None), batch, key, plans)
        return new.replace(reference=state.reference), metrics

    def lower(self, state: TrainState, *rest: Any) -> jax.stages.Lowered:
        """Lowers it for shapes."""
        return self.program.lower(state.replace(reference=None), *rest)


def scoring(program: jax.stages.Wrapped, layout: PyTree) -> _Scoring:
    """A jitted (state, batch, plans) that is given the reference in this layout, wherever it rests."""
    return _Scoring(program, layout)


def updating(program: jax.stages.Wrapped) -> _Updating:
    """A jitted (state, batch, key, plans) that is given no reference, and gives back the state with it."""
    return _Updating(program)
