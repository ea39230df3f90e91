"""Selectors: from worths to a choice, by a vectorised top-k with fair ties or by draws in proportion.

A selector is a function (worth [J], key, *, k, eligible) -> (indices [k], mask [k]).  Every choice is a function of
the worths and a key alone, so it is the same on any number of devices.  Those that draw at random in proportion to
weights do so by Gumbel-top-k: adding Gumbel noise to log w and taking the k highest is sampling one at a time without
replacement, each time in proportion to the weights that are left (Vieira 2014; Kool et al. 2019, arXiv:1903.06059).
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Key

from lilo_jax.types import Array

Selector = Callable[..., tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]]
"""(worth, key, *, k, eligible or None for all) -> (indices, mask).

Worths are numbers, one for each question, but for `mixture` and `per_class`, which say what they read.
"""


def top_k(
    worth: Float[Array, "questions"],
    key: Key[jax.Array, ""],
    *,
    k: int,
    eligible: Bool[Array, "questions"] | None = None,
) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
    """Indices of the `k` of highest worth; equals are ordered at random.

    Every number may be chosen, infinities too: -inf comes after all others.  NaN and ineligible entries are never
    chosen, though fewer than `k` are then: what was never measured has no place among what was.  (A plain sort or
    `lax.top_k` ranks NaN first, and breaks ties by position: with 8 attempts p(1-p) takes five values only, so
    position would decide most choices.)

    Args:
        worth: NaN where there is none.
        key: consumed; breaks ties.
        k: static.
        eligible: which may be chosen; None: all.

    Returns:
        Indices, distinct where the mask is, best first; and the mask, whose first entries are True, as many
        as there are eligible numbers.
    """
    chex.assert_rank(worth, 1)
    usable = ~jnp.isnan(worth) if eligible is None else ~jnp.isnan(worth) & eligible
    worth = jnp.where(usable, worth, -jnp.inf)
    tie_break = jax.random.uniform(key, worth.shape)
    # Two partial sorts: the k-th highest worth, then who of those that have it comes in.  Sorting all is 50 times
    # slower at a million questions.
    some = min(k, worth.shape[0])
    last = jax.lax.top_k(worth, max(some, 1))[0][-1]
    priority = jnp.where(worth > last, 2.0, tie_break - 2.0 * (worth < last) - 2.0 * ~usable)
    chosen = jax.lax.top_k(priority, some)[1]
    order = jnp.lexsort((tie_break[chosen], -worth[chosen], ~usable[chosen]))
    indices = chosen[order].astype(jnp.int32)
    return jnp.pad(indices, (0, k - some)), jnp.pad(usable[indices], (0, k - some))


def gumbel_top_k(
    weights: Float[Array, "questions"],
    key: Key[jax.Array, ""],
    *,
    k: int,
    eligible: Bool[Array, "questions"] | None = None,
) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
    """`k` indices drawn without replacement in proportion to `weights`; those of weight 0 come last.

    P(first = i) = w_i / sum_j w_j, and so on over what is left (Plackett-Luce).  NaN is never drawn.

    Args: as `top_k`; weights at least 0.
    """
    noise_key, tie_key = jax.random.split(key)
    return top_k(jnp.log(weights) + jax.random.gumbel(noise_key, weights.shape), tie_key, k=k, eligible=eligible)


def softmax(temperature: float) -> Selector:
    """Draws without replacement in proportion to exp(worth / temperature)."""

    def select(
        worth: Float[Array, "questions"],
        key: Key[jax.Array, ""],
        *,
        k: int,
        eligible: Bool[Array, "questions"] | None = None,
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        noise_key, tie_key = jax.random.split(key)
        noisy = worth / temperature + jax.random.gumbel(noise_key, worth.shape)
        return top_k(noisy, tie_key, k=k, eligible=eligible)

    return select


def ranks(
    worth: Float[Array, "questions"], key: Key[jax.Array, ""], *, eligible: Bool[Array, "questions"] | None = None
) -> Int[Array, "questions"]:
    """Rank of each entry, 1 for the highest worth, ties at random, NaN and the ineligible last."""
    order, _ = top_k(worth, key, k=worth.shape[0], eligible=eligible)
    return jnp.zeros(worth.shape, jnp.int32).at[order].set(jnp.arange(1, worth.shape[0] + 1, dtype=jnp.int32))


def rank_weights(
    worth: Float[Array, "questions"],
    key: Key[jax.Array, ""],
    *,
    beta: float,
    eligible: Bool[Array, "questions"] | None = None,
) -> Float[Array, "questions"]:
    """Probabilities in proportion to rank(worth)^(-1 / beta), ties at random; 0 for NaN and the ineligible."""
    usable = ~jnp.isnan(worth) if eligible is None else ~jnp.isnan(worth) & eligible
    weights = ranks(worth, key, eligible=eligible).astype(jnp.float32) ** (-1 / beta) * usable
    return weights / jnp.maximum(jnp.sum(weights), jnp.finfo(jnp.float32).tiny)


def rank_power(beta: float) -> Selector:
    """Draws without replacement in proportion to rank(worth)^(-1 / beta): PLR's prioritisation (equation 1)."""

    def select(
        worth: Float[Array, "questions"],
        key: Key[jax.Array, ""],
        *,
        k: int,
        eligible: Bool[Array, "questions"] | None = None,
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        rank_key, draw_key = jax.random.split(key)
        usable = ~jnp.isnan(worth) if eligible is None else ~jnp.isnan(worth) & eligible
        return gumbel_top_k(rank_weights(worth, rank_key, beta=beta, eligible=eligible), draw_key, k=k, eligible=usable)

    return select


def whole_part(share: float, k: int) -> int:
    """floor(share * k), held against rounding: 0.29 of 100 is 29, though the product of floats is below it."""
    return int(share * k + 1e-9)


def mixture(share: float, first: Selector, second: Selector) -> Selector:
    """The first `share` of the k questions by `first`, the rest by `second` from what is left.

    The split is fixed, floor(share * k) of them, not by a coin, so that batches are alike.  What `first` cannot fill
    is handed on to `second`.

    Returns:
        A selector of a pair: worth that the first reads, and worth that the second reads.
    """

    def select(
        pair: tuple[Float[Array, "questions"], Float[Array, "questions"]],
        key: Key[jax.Array, ""],
        *,
        k: int,
        eligible: Bool[Array, "questions"] | None = None,
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        worth, others = pair
        ours, theirs = jax.random.split(key)
        left = jnp.ones(worth.shape, bool) if eligible is None else jnp.asarray(eligible)
        some = whole_part(share, k)
        # The last part is for what the first could not fill.
        parts = [(first, worth, ours, some), (second, others, theirs, k - some)]
        parts += [(second, others, jax.random.fold_in(theirs, 1), some)]
        chosen = []
        for choose, read, own_key, count in parts:
            indices, mask = choose(read, own_key, k=count, eligible=left)
            left = left.at[jnp.where(mask, indices, left.shape[0])].set(False, mode="drop")
            chosen.append((indices, mask))
        indices, mask = map(jnp.concatenate, zip(*chosen, strict=True))
        filled_first = jnp.argsort(~mask, stable=True)[:k]
        return indices[filled_first], mask[filled_first]

    return select


class Classes(NamedTuple):
    """What `per_class` reads.

    Attributes:
        worth: of the questions.
        classes: the class of each.
        logits: of the classes; -inf is never drawn.
    """

    worth: Float[Array, "questions"]
    classes: Int[Array, "questions"]
    logits: Float[Array, "classes"]


def per_class(choose: Selector = top_k) -> Selector:
    """Two levels: k draws of a class by softmax weights, then for each the question of that class with most worth.

    A draw falls on a class in proportion to exp(logit), with replacement as bandits do, and takes the best question of
    the class by `choose` that is not taken yet; a class that has run out leaves its draws to the others.

    Args:
        choose: orders the questions of a class.

    Returns:
        A selector of `Classes`.
    """

    def select(
        read: Classes, key: Key[jax.Array, ""], *, k: int, eligible: Bool[Array, "questions"] | None = None
    ) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
        worth, classes, logits = read
        class_key, order_key, tie_key = jax.random.split(key, 3)
        usable = ~jnp.isnan(worth) if eligible is None else ~jnp.isnan(worth) & eligible
        present = jnp.zeros(logits.shape, bool).at[classes].max(usable)
        drawn = jax.random.categorical(class_key, jnp.where(present, logits, -jnp.inf), shape=(k,))
        draws = jnp.zeros(logits.shape, jnp.int32).at[drawn].add(1)
        order, _ = choose(worth, order_key, k=worth.shape[0], eligible=usable)
        # Position of each entry within its class, in that order: the first draws[c] of class c come in first.
        by_class = order[jnp.argsort(classes[order], stable=True)]
        ordered = classes[by_class]
        position = jnp.arange(worth.shape[0]) - jnp.searchsorted(ordered, ordered)
        taken = jnp.zeros(worth.shape, bool).at[by_class].set(position < draws[ordered])
        open_to_all = jnp.where(jnp.isfinite(logits)[classes], 0.0, -1.0)
        return top_k(jnp.where(taken, 1.0, open_to_all), tie_key, k=k, eligible=usable)

    return select


def diverse(
    weighted: tuple[Float[Array, "questions"], Float[Array, "questions features"]],
    key: Key[jax.Array, ""],
    *,
    k: int,
    eligible: Bool[Array, "questions"] | None = None,
) -> tuple[Int[Array, "chosen"], Bool[Array, "chosen"]]:
    """`k` entries of high weight that differ from each other: a determinantal point process's likeliest set, greedily.

    Each in turn is the one that adds most to

        sum over chosen i of log w_i  +  log det (cosines of the chosen rows)

    which is log w_i + log of the share of its vector that the chosen ones do not span.

    Args:
        weighted: w, at least 0, and a row for each.
        key, k, eligible: as in `top_k`; those of weight 0 come last.

    Returns:
        As `top_k`, in the order in which they were chosen.

    Source: Kulesza and Taskar 2012 (arXiv:1207.6083); Chen et al. 2018 (arXiv:1709.05135), algorithm 1.
    """
    weights, rows = weighted
    rows = rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    usable = ~jnp.isnan(weights) if eligible is None else ~jnp.isnan(weights) & eligible
    tie_break = 1e-4 * jax.random.uniform(key, weights.shape)
    worth = jnp.where(usable, jnp.log(jnp.maximum(weights, 1e-12)), -1e6) + tie_break

    def choose(nth: Int[Array, ""], carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        factor, left, chosen, taken = carry
        best = jnp.argmax(jnp.where(taken, -jnp.inf, worth + jnp.log(left)))
        column = (rows @ rows[best] - factor @ factor[best]) / jnp.sqrt(left[best])
        left = jnp.maximum(left - column**2, 1e-6)
        return factor.at[:, nth].set(column), left, chosen.at[nth].set(best), taken.at[best].set(True)

    count = weights.shape[0]
    some = min(k, count)
    start = (jnp.zeros((count, k)), jnp.ones(count), jnp.zeros(k, jnp.int32), jnp.zeros(count, bool))
    chosen = jax.lax.fori_loop(0, some, choose, start)[2]
    return chosen, usable[chosen] & (jnp.arange(k) < some)


def draw(key: Key[jax.Array, ""], *, size: int, k: int) -> Int[Array, "chosen"]:
    """`k` distinct numbers of 0..size-1, uniform over ordered draws without replacement; k <= size.

    The first k different numbers of a stream of independent ones, which is a draw without replacement, exactly, and
    needs no sort.  A stream of 2 k may hold too few; it is then drawn anew, which favours no number over another.
    """
    if size < 2 * k:
        return jax.random.permutation(key, size)[:k].astype(jnp.int32)

    def stream(
        carry: tuple[Key[jax.Array, ""], Int[jax.Array, "chosen"], Int[jax.Array, ""]],
    ) -> tuple[Key[jax.Array, ""], Int[jax.Array, "chosen"], Int[jax.Array, ""]]:
        key, _, _ = carry
        key, own = jax.random.split(key)
        numbers = jax.random.randint(own, (2 * k,), 0, size, dtype=jnp.int32)
        nth = jnp.arange(2 * k, dtype=jnp.int32)
        is_new = jnp.full(size, 2 * k, jnp.int32).at[numbers].min(nth)[numbers] == nth
        rank = jnp.cumsum(is_new)
        index = jnp.where(is_new, rank - 1, k)
        return key, jnp.zeros(k, jnp.int32).at[index].set(numbers, mode="drop"), rank[-1]

    return jax.lax.while_loop(lambda carry: carry[2] < k, stream, (key, jnp.zeros(k, jnp.int32), jnp.int32(0)))[1]
