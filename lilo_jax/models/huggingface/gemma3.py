"""The text part of Gemma 3: as Gemma 2 without capped scores, with normalised queries and keys and two rotations."""

from typing import Any

from lilo_jax.models.architecture import Architecture
from lilo_jax.models.huggingface.family import NAMES, Family, both_norms, read_windows
from lilo_jax.models.huggingface.fields import Fields
from lilo_jax.models.huggingface.gemma2 import read_gemma, read_softcap, read_window, write_gemma
from lilo_jax.models.huggingface.rope import parse_rope, rope_parameters, write_rope
from lilo_jax.models.rope import Rope

GLOBAL_THETA, LOCAL_THETA = 1_000_000.0, 10_000.0


def read(fields: Fields) -> Architecture:
    """Of a Gemma 3 text model."""
    common = read_gemma(fields, context=131_072)
    if fields.take("attn_logit_softcapping", (int, float), None) is not None:
        raise fields.unsupported("attn_logit_softcapping", "set", "transformers reads it, and does not use it")
    period = fields.size("sliding_window_pattern", 6)
    rope, local_theta = _read_ropes(fields, common["context_length"])
    return Architecture(
        family="gemma3_text",
        **common,
        query_key_norm="head",
        logit_softcap=read_softcap(fields, "final_logit_softcapping", 0.0),
        windows=read_windows(fields, common["num_layers"], read_window(fields), lambda i: (i + 1) % period != 0),
        rope=rope,
        local_rope_theta=local_theta,
    )


def _read_ropes(fields: Fields, context_length: int) -> tuple[Rope, float]:
    """The rotation of global layers, and the base of the wavelengths of local ones, which are not stretched."""
    thetas = fields.positive("rope_theta", GLOBAL_THETA), fields.positive("rope_local_base_freq", LOCAL_THETA)
    scaling = fields.take("rope_scaling", dict, {})
    if "type" in scaling and scaling.get("rope_type") != scaling["type"]:
        raise fields.unsupported("rope_scaling", scaling, "transformers 5 overlooks «type»: call it rope_type")
    nested = Fields(fields.take("rope_parameters", dict, {}), f"{fields.where}, rope_parameters")
    # The older form is about global layers, and goes over the newer one where a file has both.
    given = nested.take("full_attention", dict, {}) | scaling, nested.take("sliding_attention", dict, {})
    nested.finish("gemma3_text")
    full, local = (
        parse_rope(Fields(values, f"{fields.where}, rotation of {kind} layers"), context_length, theta=theta)
        for kind, values, theta in zip(("global", "local"), given, thetas, strict=True)
    )
    if local.scaling != "default":
        raise nested.unsupported("sliding_attention", local.scaling, "local layers are not stretched")
    if not full.truncate:
        raise nested.unsupported("truncate", False, "transformers reads it, and does not use it")
    return full, local.theta


def write(a: Architecture) -> dict[str, Any]:
    """Of a Gemma 3 text model."""
    shared = any(a.windows) and not a.local_rope_theta
    local = a.rope if shared else Rope(theta=a.local_rope_theta or LOCAL_THETA)
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
