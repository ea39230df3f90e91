"""The text part of Gemma 3: as Gemma 2 without capped scores, with normalised queries and keys and two rotations."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import NAMES, Family, both_norms, read_windows
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.gemma2 import read_gemma, read_softcap, write_gemma
from lilo_jax.models.huggingface.rope import parse_rope, read_rope, rope_parameters, write_rope
from lilo_jax.models.rope import Rope

GLOBAL_THETA, LOCAL_THETA = 1_000_000.0, 10_000.0


def read(fields: Fields) -> Architecture:
    """Of a Gemma 3 text model."""
    common = read_gemma(fields)
    if fields.take("attn_logit_softcapping", (int, float), None) is not None:
        raise fields.unsupported("attn_logit_softcapping", "set", "transformers reads it, and does not use it")
    window = None if fields.says_null("sliding_window") else 4096
    window = fields.size("sliding_window", window) if window else None
    period = fields.size("sliding_window_pattern", 6)
    rope, local_theta = _read_ropes(fields, common["context_length"])
    return Architecture(
        family="gemma3_text",
        **common,
        query_key_norm="head",
        logit_softcap=read_softcap(fields, "final_logit_softcapping", 0.0),
        windows=read_windows(fields, common["num_layers"], window, lambda i: (i + 1) % period != 0),
        rope=rope,
        local_rope_theta=local_theta,
    )


def _read_ropes(fields: Fields, context_length: int) -> tuple[Rope, float]:
    """The rotation of global layers, and the base of the wavelengths of local ones, which are not stretched."""
    local_theta = fields.number("rope_local_base_freq", LOCAL_THETA)
    nested = fields.take("rope_parameters", dict, {})
    if not nested:
        return read_rope(fields, context_length, theta=GLOBAL_THETA), local_theta
    for name in ("rope_theta", "rope_scaling"):  # the same in the older form
        fields.take(name, (int, float, dict), None)
    given = Fields(nested, f"{fields.where}, rope_parameters")
    full, local = (
        Fields(given.take(kind, dict, {}), f"{given.where}, {kind}") for kind in ("full_attention", "sliding_attention")
    )
    given.finish("gemma3_text")
    local_rope = parse_rope(local, context_length, theta=local_theta)
    if local_rope.scaling != "default":
        raise local.unsupported("rope_type", local_rope.scaling, "local layers are not stretched")
    return parse_rope(full, context_length, theta=GLOBAL_THETA), local_rope.theta


def write(a: Architecture) -> dict[str, Any]:
    """Of a Gemma 3 text model."""
    local = Rope(theta=a.local_rope_theta) if a.local_rope_theta else a.rope
    nested = {"full_attention": rope_parameters(a.rope), "sliding_attention": rope_parameters(local)}
    return {
        **write_gemma(a),
        **write_rope(a.rope),
        "rope_parameters": nested,
        "rope_local_base_freq": local.theta,
    }


GEMMA3 = Family(
    "gemma3_text", "Gemma3ForCausalLM", "Gemma3TextForSequenceClassification", read, write, both_norms(NAMES)
)
