"""How a run's state lies on the mesh, derived from the logical axes of its weights."""

from typing import Any, cast

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from lilo_jax.device.mesh import replicated, sharding
from lilo_jax.models import Model
from lilo_jax.models.lora import LoraConfig, adapter_axes, pair_axes
from lilo_jax.models.projection import LowRank
from lilo_jax.types import Array, PyTree, Trainable, TrainState


def weights_layout(mesh: Mesh, axes: PyTree, shapes: PyTree) -> PyTree:
    """Shardings of a parameter tree from the logical axes of its weights."""
    return jax.tree.map(
        lambda names, leaf: sharding(mesh, names, leaf.shape), axes, shapes, is_leaf=lambda x: isinstance(x, tuple)
    )


def trainable_layout(mesh: Mesh, axes: PyTree, optimizer: Any, shapes: Trainable) -> Trainable:
    """Shardings of weights and of optimiser moments, which lie as their weights do."""
    params = weights_layout(mesh, axes, shapes.params)
    moments = optax.tree_map_params(
        optimizer,
        lambda _, layout: layout,
        shapes.optimizer,
        params,
        transform_non_params=lambda _: replicated(mesh),
    )
    return Trainable(params=params, optimizer=moments)


def state_layout(
    mesh: Mesh,
    model: Model,
    lora: LoraConfig,
    shapes: TrainState,
    *,
    optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation,
) -> TrainState:
    """Shardings of everything that a run remembers between steps."""
    axes, critic_axes = model.axes, model.critic_axes
    if shapes.base is not None:
        axes = adapter_axes(model, lora)
        critic_axes = critic_axes | axes

    def whole(weights: PyTree | None) -> PyTree | None:
        return None if weights is None else weights_layout(mesh, model.axes, weights)

    # A tree of shardings in the structure of the state.
    return TrainState(
        step=cast(Array, replicated(mesh)),
        policy=trainable_layout(mesh, axes, optimizer, shapes.policy),
        critic=shapes.critic and trainable_layout(mesh, critic_axes, critic_optimizer, shapes.critic),
        reference=whole(shapes.reference),
        base=whole(shapes.base),
        curriculum=jax.tree.map(lambda _: replicated(mesh), shapes.curriculum),
        memory=jax.tree.map(lambda _: replicated(mesh), shapes.memory),
    )


def sampling_weights(model: Model, params: PyTree, dtype: str) -> PyTree:
    """The weights as sampling wants them: in `dtype`, and whole on every shard.

    Args:
        model: whose they are.
        params: as trained; may hold `LowRank` nodes.
        dtype: of what is multiplied; norms and biases stay float32.
    """

    def ready(weight: Array | LowRank, axes: tuple, inputs: int) -> Array | LowRank:
        if isinstance(weight, LowRank):
            pair = pair_axes(axes, inputs)
            parts = ((weight.base, axes), (weight.a, pair["a"]), (weight.b, pair["b"]))
            base, a, b = (moved(part, names, inputs) for part, names in parts)
            return LowRank(base, a, b, scale=weight.scale)
        return moved(weight, axes, inputs)

    def moved(weight: Array, axes: tuple, inputs: int) -> Array:
        return model.shards.whole(weight, dtype if inputs else weight.dtype, *axes)

    return jax.tree.map(ready, params, model.axes, model.inputs, is_leaf=lambda node: isinstance(node, LowRank))


def placed_shapes(shapes: PyTree, layout: PyTree) -> PyTree:
    """Shapes that know their shardings."""

    def placed(shape: jax.ShapeDtypeStruct, spec: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=spec)

    return jax.tree.map(placed, shapes, layout)
