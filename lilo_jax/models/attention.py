"""Attention over whole sequences, packed ones included: one function, and the kernels that compute it.

All kernels have the arguments and the result of `reference`; `attention_kernel` says which one fits a device.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from lilo_jax.models.blockwise import blockwise
from lilo_jax.models.segments import PLAIN, Segments, View
from lilo_jax.types import Array

Kernel = Literal["xla", "splash", "cudnn", "reference"]
LONG = 4096
"""Tokens of a row from which on scores are not stored for a block of queries and all keys, but for two blocks."""
PART = 128
"""A row whose tokens are split has a multiple of so many tokens on each device: what `splash` needs."""


Attend = Callable[
    [
        Float[Array, "rows tokens heads head_dim"],
        Float[Array, "rows tokens kv_heads head_dim"],
        Float[Array, "rows tokens kv_heads head_dim"],
        Segments | None,
        View,
    ],
    Float[Array, "rows tokens heads head_dim"],
]
"""(query, key, value, segments of packed rows or None, view) -> what the queries see."""
Sharding = Callable[[tuple[str | None, ...], tuple[int, ...]], NamedSharding]
"""(logical axes, shape) -> the sharding of such an array; `lilo_jax.device.mesh.sharding` with its mesh given."""


def attention_kernel(
    choice: Literal["auto"] | Kernel,
    *,
    platform: str,
    dtype: Literal["float32", "bfloat16"],
    head_dim: int,
    plain: bool = True,
    split: bool = False,
) -> Kernel:
    """The kernel to use: `choice` itself if it can run, and for "auto" the fastest that can.

    "auto" takes `splash` on a TPU for head dimensions that are multiples of 64, `cudnn` on a GPU for bfloat16 and head
    dimensions that are multiples of 8 up to 128 if no layer has a window or capped scores, and `xla` otherwise.

    Args:
        choice: "auto" or the name of a kernel.
        platform: of the devices: "cpu", "gpu" or "tpu".
        dtype: of queries, keys and values.
        head_dim: H.
        plain: whether every layer has the default `View`.
        split: whether the tokens of a row are split over devices.

    Raises:
        ValueError: the chosen kernel cannot run there; the message says why, and the cure.
    """
    obstacles = {
        "xla": "",
        "reference": split and "knows no rows whose tokens are split (--mesh.sequence)",
        "splash": (platform != "tpu" and f"needs a TPU, not {platform}")
        or (head_dim % 64 and f"needs a head dimension that is a multiple of 64, not {head_dim}"),
        "cudnn": (platform != "gpu" and f"needs a GPU, not {platform}")
        or (dtype != "bfloat16" and f"needs bfloat16, not {dtype}")
        or (not plain and "knows no windows and no capped scores")
        or (split and "knows no rows whose tokens are split (--mesh.sequence)")
        or ((head_dim % 8 or head_dim > 128) and f"needs a head dimension of 8, 16, ... 128, not {head_dim}"),
    }
    fastest_first: tuple[Kernel, ...] = ("splash", "cudnn", "xla")
    if choice == "auto":
        return next(name for name in fastest_first if not obstacles[name])
    if obstacles[choice]:
        raise ValueError(f'the attention kernel "{choice}" {obstacles[choice]}: choose "auto" or "xla"')
    return choice


def shares_prompts(kernel: Kernel) -> bool:
    """Whether packed rows may have segments that continue another: `splash` compares segments for equality alone."""
    return kernel != "splash"


def sequence_attention(kernel: Kernel, sharding: Sharding | None = None, *, split: bool = False) -> Attend:
    """Causal softmax(cap(q k^T / sqrt(H))) v over what `Segments` let a token see, computed by `kernel`.

    Args:
        kernel: as from `attention_kernel`.
        sharding: how arrays lie on the mesh.  `splash` and `cudnn` are opaque to the compiler, so each device is
            handed its own rows and heads; the others are partitioned by the compiler.  None: one device.
        split: whether the tokens of a row are split over devices; then each is handed its own tokens as well.

    Returns:
        attend(query, key, value, segments, view); the K key heads divide the N query heads, and query head n reads key
        head n // (N / K).  segments: of packed rows; None: a row is one sequence.  view: see `View`.
    """
    if split and sharding is not None:
        return functools.partial(on_parts, {"splash": splash_tables, "xla": no_tables}[kernel], sharding)
    opaque = {"splash": splash, "cudnn": cudnn}
    if kernel in opaque:
        return opaque[kernel] if sharding is None else functools.partial(on_shards, opaque[kernel], sharding)
    return {"xla": attend_sequence, "reference": reference}[kernel]


def reference(
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """The definition in float32, with a full [T, T] matrix per head: what the other kernels are tested against."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (jnp.repeat(x.astype(jnp.float32), repeats, axis=2) for x in (key, value))
    scores = jnp.einsum("btnh,bsnh->bnts", query.astype(jnp.float32), key) / math.sqrt(query.shape[3])
    visible = _visible(segments, view, slice(0, query.shape[1]), slice(0, query.shape[1]))
    weights = jax.nn.softmax(jnp.where(visible[:, None], view.bound(scores), -jnp.inf), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", weights, value).astype(query.dtype)


def _visible(segments: Segments | None, view: View, queries: slice, keys: slice) -> Bool[Array, "#rows queries keys"]:
    """Whether the tokens at some places of a row see those at others."""
    if segments is not None:
        return segments.at(queries).see(view, segments.at(keys))
    return view.sees(jnp.arange(queries.start, queries.stop)[:, None], jnp.arange(keys.start, keys.stop)[None])[None]


def attend_sequence(
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """The kernel "xla": plain array operations, for any device.

    Queries are taken in up to 8 blocks, of at least 64, each of which meets only the keys up to its own end, and from
    the beginning of its window, unless it may continue a segment further back: of the [T, T] matrix little more than
    the visible part is computed.  Rows of more than `LONG` tokens go to `blockwise`.
    """
    width = query.shape[1]
    if width > LONG:
        return blockwise(query, key, value, segments, view)
    block = max(64, -(-width // 8))
    return jnp.concatenate(
        [
            _attend_block(query, key, value, segments, view, start, min(start + block, width))
            for start in range(0, width, block)
        ],
        axis=1,
    )


def _attend_block(
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View,
    start: int,
    end: int,
) -> Float[Array, "rows block heads head_dim"]:
    """Queries at positions [start, end) over the keys that any of them sees.

    The queries that share a key head are stacked along time, so that both products are one matrix product per row and
    key head; on CPU this is faster than products over heads in the middle of the shape.
    """
    batch, _, num_heads, dim = query.shape
    groups = num_heads // key.shape[2]
    near = view.window and (segments is None or segments.last is None)
    first = max(start - view.window + 1, 0) if near else 0
    block = (end - start, end - first)
    key, value = (jnp.swapaxes(x[:, first:end], 1, 2) for x in (key, value))  # [B, K, S, H]
    stacked = query[:, start:end].reshape(batch, block[0], -1, groups, dim).transpose(0, 2, 3, 1, 4)
    stacked = stacked.reshape(batch, -1, groups * block[0], dim)
    scores = jnp.einsum("bkth,bksh->bkts", stacked, key, preferred_element_type=jnp.float32) / math.sqrt(dim)
    visible = _visible(segments, view, slice(start, end), slice(first, end))
    bounded = view.bound(scores).reshape(batch, -1, groups, *block)
    scores = jnp.where(visible[:, None, None], bounded, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype).reshape(batch, -1, groups * block[0], block[1])
    mixed = jnp.einsum("bkts,bksh->bkth", weights, value).reshape(batch, -1, groups, block[0], dim)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, block[0], num_heads, dim)


def splash(
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
    *,
    interpret: bool = False,
) -> Float[Array, "rows tokens heads head_dim"]:
    """The block-sparse flash attention for TPUs that comes with JAX; no [T, T] matrix is stored.

    T is padded to a multiple of equal blocks of at most 512.  What stands in the padding comes after every token and
    is seen by none of them.  No segment may continue another: see `shares_prompts`.  `interpret` runs the kernel on
    any device, slowly.
    """
    _, width, num_heads, _ = query.shape
    blocks = -(-width // 512)
    block = -(-width // (blocks * 128)) * 128
    padding = blocks * block - width
    kernel = _splash_kernel(num_heads, width + padding, block, view, interpret=interpret)
    query, key, value = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (query, key, value))
    own = None if segments is None else jnp.pad(segments.own, ((0, 0), (0, padding)), mode="edge")
    return _run_splash(kernel, query, key, value, own, own)[:, :width]


def _splash_kernel(
    num_heads: int, width: int, block: int, view: View, *, parts: int = 1, interpret: bool = False
) -> Any:
    """The kernel for rows of so many tokens, whose queries lie in so many parts."""
    # Imported here: other platforms need not load the compiler of TPU kernels.
    from jax.experimental.pallas.ops.tpu import splash_attention as tpu

    shape = (width, width)
    mask = tpu.LocalMask(shape, (view.window - 1, 0), 0) if view.window else tpu.CausalMask(shape)
    sizes: dict[str, Any] = dict.fromkeys(
        ["block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq"], block
    )
    return tpu.make_splash_mha(
        tpu.MultiHeadMask([mask] * num_heads),
        block_sizes=tpu.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=parts,
        attn_logits_soft_cap=view.softcap or None,
        interpret=interpret,
    )


def _run_splash(
    kernel: Any,
    query: Float[Array, "rows queries heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    own: Int[Array, "rows queries"] | None,
    others: Int[Array, "rows tokens"] | None,
) -> Float[Array, "rows queries heads head_dim"]:
    from jax.experimental.pallas.ops.tpu import splash_attention as tpu

    query = query * jnp.asarray(query.shape[3] ** -0.5, query.dtype)
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    ids = None if own is None or others is None else tpu.SegmentIds(jnp.asarray(own), jnp.asarray(others))
    return jnp.swapaxes(jax.vmap(kernel)(query, key, value, ids), 1, 2)


def cudnn(
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """The flash attention of cuDNN for NVIDIA GPUs; packed rows, which it cannot mask, go to `attend_sequence`."""
    if segments is not None:
        return attend_sequence(query, key, value, segments, view)
    return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation="cudnn")


def on_shards(
    attend: Attend,
    sharding: Sharding,
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """`attend`, each device on its own rows and key heads, with the query heads that read them."""
    layout = sharding(("rows", None, "kv_heads", None), key.shape)
    if layout.mesh.size == 1:
        return attend(query, key, value, segments, view)
    heads, tokens = layout.spec, PartitionSpec(layout.spec[0])
    # Nothing is communicated, so there is no replication to check; kernels do not declare theirs.
    share = functools.partial(jax.shard_map, mesh=layout.mesh, out_specs=heads, check_vma=False)
    seen = share(lambda q, k, v, s: attend(q, k, v, s, view), in_specs=(heads, heads, heads, tokens))
    return seen(query, key, value, segments)


class _Tables(NamedTuple):
    """What a kernel is handed besides arrays to attend to, as it is split over devices, and how it is run.

    Attributes:
        tables: arrays; None if it needs none.
        layout: their partition specs.
        attend: (tables, query of a part, key, value, segments of the whole row or None, place of the first query).
    """

    tables: Any
    layout: Any
    attend: Callable[..., Float[Array, "rows queries heads head_dim"]]


def no_tables(
    layout: NamedSharding, key: Float[Array, "rows tokens kv_heads head_dim"], num_heads: int, view: View
) -> _Tables:
    """Of `blockwise`."""
    del layout, key, num_heads
    return _Tables(None, PartitionSpec(), lambda _, q, k, v, segments, first: blockwise(q, k, v, segments, view, first))


def splash_tables(
    layout: NamedSharding,
    key: Float[Array, "rows tokens kv_heads head_dim"],
    num_heads: int,
    view: View,
    *,
    interpret: bool = False,
) -> _Tables:
    """Of `splash`: which blocks of keys each part of the queries meets.

    Args:
        layout: of the keys.
        key: of the rows, T a multiple of `PART` tokens for each part.
        num_heads: of the queries on a device.
        view: see `View`.
        interpret: see `splash`.
    """
    width = key.shape[1]
    parts = width // layout.shard_shape(key.shape)[1]
    block = next(size for size in (512, 256, PART) if width // parts % size == 0)
    kernel = _splash_kernel(num_heads, width, block, view, parts=parts, interpret=interpret)
    specs = kernel.manual_sharding_spec(NamedSharding(layout.mesh, PartitionSpec(None, layout.spec[1])))

    def attend(
        kernel: Any,
        query: Float[Array, "rows queries heads head_dim"],
        key: Float[Array, "rows tokens kv_heads head_dim"],
        value: Float[Array, "rows tokens kv_heads head_dim"],
        segments: Segments | None,
        first: Int[Array, ""],
    ) -> Float[Array, "rows queries heads head_dim"]:
        if segments is None:
            return _run_splash(kernel, query, key, value, None, None)
        own = jax.lax.dynamic_slice_in_dim(segments.own, first, query.shape[1], axis=1)
        return _run_splash(kernel, query, key, value, own, segments.own)

    return _Tables(kernel, specs, attend)


def on_parts(
    prepared: Callable[..., _Tables],
    sharding: Sharding,
    query: Float[Array, "rows tokens heads head_dim"],
    key: Float[Array, "rows tokens kv_heads head_dim"],
    value: Float[Array, "rows tokens kv_heads head_dim"],
    segments: Segments | None,
    view: View = PLAIN,
) -> Float[Array, "rows tokens heads head_dim"]:
    """Attention where the tokens of a row are split: each device has its own queries and gathers keys and values.

    What is gathered is small beside what is not: grouped queries share few key heads, and no other activation leaves
    its device (Llama Team 2024, section 3.3.2).  Backwards the gradients of keys and values are summed and scattered.

    Args:
        prepared: (layout, key, heads of a device, view) -> `_Tables` of the kernel.
        sharding: see `sequence_attention`.
        query, key, value, segments, view: as `reference` takes them; T is a multiple of `PART` tokens for each device.
    """
    layout = sharding(("rows", "tokens", "kv_heads", None), key.shape)
    rows, parts = layout.spec[:2]
    num_heads = query.shape[2] * layout.shard_shape(key.shape)[2] // key.shape[2]
    tables, specs, attend = prepared(layout, key, num_heads, view)

    def on_part(tables: Any, query: Array, key: Array, value: Array, segments: Segments | None) -> Array:
        key, value = (jax.lax.all_gather(x, parts, axis=1, tiled=True) for x in (key, value))
        return attend(tables, query, key, value, segments, jax.lax.axis_index(parts) * query.shape[1])

    run = jax.shard_map(
        on_part,
        mesh=layout.mesh,
        in_specs=(specs, layout.spec, layout.spec, layout.spec, PartitionSpec(rows)),
        out_specs=layout.spec,
        check_vma=False,
    )
    return run(tables, query, key, value, segments)
