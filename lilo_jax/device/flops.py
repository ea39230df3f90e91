"""Operations that a token takes, from the shapes of the weights.

A multiply-add is two operations, and a matrix product needs one for every weight and token: 2 N forward.  Backward it
needs as much for the gradient by the input and again for that by the weight: 6 N in all.  (Kaplan et al. 2020, section
2.1.)  N is every weight but the table that embeddings are looked up in, the output projection included.

What this leaves out or has too much of: attention over keys, which at T tokens before and width D adds about
T / (6 D) of a layer; norms, biases and activation functions; the projection of prompt tokens to the vocabulary, which
the sampler leaves out; what an implementation adds by padding and recomputation.  A critic counts as a policy.
"""

import math

import jax

from lilo_jax.types import PyTree, TrainState


def token_flops(state: TrainState) -> dict[str, int]:
    """Operations of one token of each kind on the ledger: 2 N without a gradient, 6 N with one.

    With adapters, n weights of their own above a frozen base of N, all tokens pass through both, and no gradient by the
    base's weights is computed: 2 (N + n) and 4 N + 6 n.

    Args:
        state: of a run; shapes are enough.
    """
    trained = matrix_weights(state.policy.params)
    frozen = 0 if state.base is None else matrix_weights(state.base)
    forward = 2 * (trained + frozen)
    return {"prefilled": forward, "generated": forward, "scored": forward, "trained": 6 * trained + 4 * frozen}


def matrix_weights(params: PyTree) -> int:
    """Weights that a token is multiplied with: all but the embedding table, unless it is the output projection too."""
    weights = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return weights - math.prod(params["trunk"]["embedding"].shape) if "head" in params else weights
