"""Hugging Face transformers on torch: `generate`, scoring, and a hand-written update."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from benchmarks import checkpoint, workload
from benchmarks.worker import Gate
from benchmarks.workload import PAD, Job

LIBRARIES = ("torch", "transformers")


def load(job: Job, dtype: torch.dtype) -> LlamaForCausalLM:
    """The model, from a checkpoint that lives no longer than this call."""
    if job.device == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.write(job.shape, Path(directory))
        model = LlamaForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa")
    return model.to(device(job))


def device(job: Job) -> str:
    """Where torch runs."""
    return "cpu" if job.device == "cpu" or not torch.cuda.is_available() else "cuda"


def finish(job: Job) -> dict:
    """Waits for the device; its peak memory."""
    if device(job) == "cpu":
        return {}
    torch.cuda.synchronize()
    return {"device_peak_mb": torch.cuda.max_memory_allocated() / 2**20}


def sampler(job: Job) -> Callable[[np.ndarray, int], None]:
    """(prompts [R, P], new tokens) -> None, after sampling so many tokens for every row."""
    model = load(job, getattr(torch, job.dtype)).eval()

    def generate(prompts: np.ndarray, new_tokens: int) -> None:
        ids = torch.tensor(prompts, dtype=torch.long, device=device(job))
        settings = GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=new_tokens,
            min_new_tokens=new_tokens, eos_token_id=None, pad_token_id=PAD,
        )  # fmt: skip
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        if out.shape != (ids.shape[0], ids.shape[1] + new_tokens):
            raise RuntimeError(f"generate returned {tuple(out.shape)}")

    return generate


def rollout(job: Job, gate: Gate) -> None:
    """`generate` on all rows at once; a group's prompt is repeated."""
    generate, prompts = sampler(job), workload.prompts(job)
    rows = np.repeat(prompts, job.sizes.rows // len(prompts), axis=0)

    def run() -> dict:
        generate(rows, job.sizes.new_tokens)
        return finish(job)

    gate.repeat(run)


def lengths(job: Job, gate: Gate) -> None:
    """Fixed batches of as many rows as there are slots; each runs until its longest request is done."""
    generate, budgets, slots = sampler(job), workload.budgets(job.sizes), job.sizes.slots
    prompts = workload.tokens(job, len(budgets), job.sizes.prompt_tokens, seed=1)

    def run() -> dict:
        for i in range(0, len(budgets), slots):
            generate(prompts[i : i + slots], int(budgets[i : i + slots].max()))
        return finish(job)

    gate.repeat(run)


def monte_carlo(job: Job, gate: Gate) -> None:
    """One call per boundary, where all prefixes are equally long; every child is prefilled on its own."""
    generate, rows = sampler(job), np.repeat(workload.trajectories(job), job.sizes.children, axis=0)

    def run() -> dict:
        for boundary in workload.boundaries(job.sizes):
            generate(rows[:, :boundary], job.sizes.child_tokens)
        return finish(job)

    gate.repeat(run)


def logprobs(model: LlamaForCausalLM, ids: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Log-probs of the last `new_tokens` tokens, float32; only their positions are projected to the vocabulary."""
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=new_tokens + 1).logits[:, :-1].float()
    chosen = logits.gather(-1, ids[:, -new_tokens:, None])[..., 0]
    return chosen - torch.logsumexp(logits, -1)


def _score(job: Job) -> Callable[[], torch.Tensor]:
    model = load(job, getattr(torch, job.dtype)).eval()
    rows = torch.tensor(workload.sequences(job), dtype=torch.long, device=device(job)).split(job.sizes.microbatch)

    def score() -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([logprobs(model, part, job.sizes.new_tokens) for part in rows])

    return score


def scoring(job: Job, gate: Gate) -> None:
    """Log-probs of given completions."""
    score = _score(job)

    def run() -> dict:
        score()
        return finish(job)

    gate.repeat(run)


def parity(job: Job, gate: Gate) -> None:
    """The log-probs themselves."""
    score = _score(job)
    gate.repeat(lambda: {"logprobs": score().flatten().tolist()})


def update(job: Job, gate: Gate) -> None:
    """Clipped ratio loss, gradients added up over micro-batches, global-norm clipping, AdamW; float32 masters."""
    model = load(job, torch.float32).train()
    sizes, where = job.sizes, device(job)
    ids = torch.tensor(workload.sequences(job), dtype=torch.long, device=where)
    old = torch.full((sizes.sequences, sizes.new_tokens), -9.0, device=where)
    advantages = torch.randn(sizes.sequences, 1).to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    mixed = torch.autocast(where, getattr(torch, job.dtype), enabled=job.dtype != "float32")

    def run() -> dict:
        optimizer.zero_grad(set_to_none=True)
        parts = zip(*(x.split(sizes.microbatch) for x in (ids, old, advantages)), strict=True)
        for part, old_part, advantage in parts:
            with mixed:
                ratio = torch.exp(logprobs(model, part, sizes.new_tokens) - old_part)
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            (-surrogate.sum() / old.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return finish(job)

    gate.repeat(run)


WORKS = {
    "parity": parity,
    "rollout": rollout,
    "lengths": lengths,
    "monte_carlo": monte_carlo,
    "scoring": scoring,
    "update": update,
}
