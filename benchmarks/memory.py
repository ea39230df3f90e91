"""Peak memory of scoring with a vocabulary of 102,400: all logits at once against logits streamed in chunks.

    python -m benchmarks.memory resident       # peak resident set of a CPU process of its own for each form
    python -m benchmarks.memory tpu            # temporary bytes of the program compiled for a TPU; needs libtpu only
    python -m benchmarks.memory tpu score      # one of the programs

Prints one JSON object a line: the program ("score", or "gradient" of a loss with an entropy bonus), the bytes of both
forms and their ratio.  Of a TPU only its main memory counts; 0 means that a chunk's logits never leave the core.
"""

import argparse
import functools
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from lilo_jax.device.mesh import unconstrained
from lilo_jax.errors import unknown_name
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.scoring import completion_mask, score
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.json_lines import to_json
from lilo_jax.types import Array, PyTree, Sequences

ROWS, PROMPT, SLOTS, CHUNK = 4, 64, 512, 128
MODEL = build_model(
    DecoderConfig(num_layers=1, embed_dim=64, num_heads=2, num_kv_heads=1, head_dim=32, mlp_dim=64, vocab_size=102_400),
    unconstrained,
)
PROGRAMS = ("score", "gradient")


def streamed(params: PyTree, sequences: Sequences) -> tuple[Array, Array]:
    """The library's scoring."""
    found = score(MODEL, params, sequences, completion_width=SLOTS, temperature=1.0, chunk=CHUNK)
    return found.logprobs, found.entropy


def plain(params: PyTree, sequences: Sequences) -> tuple[Array, Array]:
    """The same from the logits of all completion positions."""
    slots = jnp.minimum(sequences.prompt_lengths[:, None] + jnp.arange(SLOTS)[None], sequences.tokens.shape[1] - 1)
    hidden = MODEL.hidden(params, sequences.tokens)
    logits = MODEL.logits(params, jnp.take_along_axis(hidden, slots[:, :, None] - 1, axis=1))
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    targets = jnp.take_along_axis(sequences.tokens, slots, axis=1)
    chosen = jnp.take_along_axis(logprobs, targets[:, :, None], axis=-1)[:, :, 0]
    mask = completion_mask(sequences, SLOTS)
    return jnp.where(mask, chosen, 0), jnp.where(mask, -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1), 0)


def program(name: str, form: Callable[..., tuple[Array, Array]]) -> Any:
    """Scoring in this form, or the gradient of a loss of it; not yet compiled."""

    def loss(params: PyTree, sequences: Sequences) -> Array:
        logprobs, entropy = form(params, sequences)
        return -jnp.sum(logprobs) - 0.01 * jnp.sum(entropy)

    return jax.jit(form if name == "score" else jax.grad(loss))


def tpu_bytes(name: str, form: Callable[..., tuple[Array, Array]], device: Any) -> int:
    """Temporary bytes of a program compiled for one TPU."""
    mesh = Mesh(np.array([device]), ("data",))
    layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = (jax.eval_shape(MODEL.init, jax.random.key(0)), jax.eval_shape(sequences))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), shapes)
    return program(name, form).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def resident_bytes(name: str, form: str) -> int:
    """Peak resident set of a process that runs a program once."""
    command = [sys.executable, "-m", "benchmarks.memory", "run", name, form]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def sequences() -> Sequences:
    """Rows without padding."""
    tokens = jax.random.randint(jax.random.key(1), (ROWS, PROMPT + SLOTS), 0, 102_400)
    return Sequences(tokens, jnp.full(ROWS, PROMPT), jnp.full(ROWS, SLOTS))


def main() -> None:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("resident", "tpu", "run"))
    parser.add_argument("programs", nargs="*", help=", ".join(PROGRAMS))
    mode, arguments = vars(parser.parse_args()).values()
    if mode == "run":
        name, form = arguments
        run = program(name, {"plain": plain, "streamed": streamed}[form])
        jax.block_until_ready(run(MODEL.init(jax.random.key(0)), sequences()))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    if mode == "tpu":
        # A description of the hardware is enough to compile for it: ask no machine about its chips.
        os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
        measure: Callable[..., int] = functools.partial(tpu_bytes, device=device)
        forms: dict[str, Any] = {"plain": plain, "streamed": streamed}
    else:
        measure, forms = resident_bytes, {"plain": "plain", "streamed": "streamed"}
    for name in arguments or PROGRAMS:
        if name not in PROGRAMS:
            raise unknown_name("program", name, PROGRAMS)
        found = {form: measure(name, value) for form, value in forms.items()}
        ratio = round(found["streamed"] / found["plain"], 3)
        print(to_json({"memory": mode, "program": name, **found, "ratio": ratio}), flush=True)


if __name__ == "__main__":
    exit_with_message(main)
