"""The compiled programs of a model that is not trained: sampling, scoring, hidden states."""

import functools
from typing import NamedTuple, Protocol

import jax
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key

from lilo_jax.device.compiling import announced
from lilo_jax.device.mesh import constrainer, replicated, row_shards_of, sharding
from lilo_jax.device.sampling import sampler
from lilo_jax.models import Model, build_model
from lilo_jax.models.architecture import plain_attention
from lilo_jax.models.attention import attention_kernel, sequence_attention, shares_prompts
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.scoring import score, span_means
from lilo_jax.rl.update import UpdateConfig
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.sampling.token_choice import TokenRule
from lilo_jax.types import Array, Completions, Prompts, PyTree, Requests, Sequences, TokenScores


class InferenceSettings(NamedTuple):
    """What sampling and scoring depend on where nothing is trained; see `ProgramSettings`."""

    model: DecoderConfig
    rollout: RolloutConfig
    end_ids: tuple[int, ...]
    known_ids: int


class Sample(Protocol):
    """`lilo_jax.sampling.sample` of a model, on host arrays; see `lilo_jax.device.sampling`."""

    def __call__(
        self,
        params: PyTree,
        prompts: Prompts,
        requests: Requests,
        key: Key[jax.Array, ""],
        stop_table: Int[Array, "states vocabulary"] | None = None,
        *,
        rule: TokenRule,
        max_new_tokens: int,
        slots: int = 0,
        max_length: int = 0,
    ) -> Completions: ...


class Score(Protocol):
    """`lilo_jax.models.scoring.score` of a model, compiled for each value of what stands behind the star."""

    def __call__(
        self, params: PyTree, sequences: Sequences, *, completion_width: int, temperature: float
    ) -> TokenScores: ...


class SpanMeans(Protocol):
    """`lilo_jax.models.scoring.span_means` of a model, compiled for each value of what stands behind the star."""

    def __call__(
        self,
        params: PyTree,
        tokens: Int[Array, "rows tokens"],
        begin: Int[Array, "rows spans"],
        end: Int[Array, "rows spans"],
        *,
        layers: tuple[int, ...],
    ) -> Float[Array, "layers rows spans embed"]: ...


class InferencePrograms(NamedTuple):
    """The jitted functions of a model that is not trained; see `Programs`."""

    model: Model
    sample: Sample
    score: Score
    span_means: SpanMeans


@functools.lru_cache(maxsize=16)
def build_inference(settings: InferenceSettings, mesh: Mesh) -> InferencePrograms:
    """Sampling, scoring and hidden states on this mesh."""
    model = model_on(settings.model, mesh)
    draw = sampler(
        model, settings.model, mesh, settings.rollout, end_ids=settings.end_ids, known_ids=settings.known_ids
    )
    means = jax.jit(functools.partial(span_means, model), static_argnames="layers", out_shardings=replicated(mesh))
    return InferencePrograms(model, draw, scorer(model, mesh, chunk=UpdateConfig().chunk), means)


def scorer(model: Model, mesh: Mesh, *, chunk: int) -> Score:
    """`lilo_jax.models.scoring.score`, compiled."""
    return jax.jit(
        announced("logprobs", functools.partial(score, model, chunk=chunk)),
        static_argnames=("completion_width", "temperature"),
        out_shardings=replicated(mesh),
    )


def model_on(config: DecoderConfig, mesh: Mesh) -> Model:
    """The model's functions, with what is fastest on the mesh's devices."""
    platform = mesh.devices.flat[0].platform
    kernel = attention_kernel(
        config.attention,
        platform=platform,
        dtype=config.compute_dtype,
        head_dim=config.head_dim,
        plain=plain_attention(config),
        split=mesh.shape["sequence"] > 1,
    )
    attend = sequence_attention(kernel, functools.partial(sharding, mesh), split=mesh.shape["sequence"] > 1)
    model = build_model(config, constrainer(mesh), platform=platform, attend=attend, shards=row_shards_of(mesh))
    return model._replace(shares_prompts=shares_prompts(kernel))
