"""TRL's GRPOTrainer: a round is one optimiser step, from generation to AdamW."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks import checkpoint, workload
from benchmarks.worker import Gate, clock
from benchmarks.workload import Job

LIBRARIES = ("trl", "transformers", "torch", "accelerate", "datasets")
MANY = 10_000
"""steps; the parent ends the process before"""


class _Turns(TrainerCallback):
    """Holds the trainer before each step until it is its turn."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.generated = [0.0, 0.0]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.gate.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.gate.answer(parts={"generate": self.generated})


class _Trainer(GRPOTrainer):
    """Takes the time of generation."""

    turns: _Turns

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        began = clock()
        result = super()._generate(*args, **kwargs)
        self.turns.generated = [now - then for now, then in zip(clock(), began, strict=True)]
        return result


def grpo(job: Job, gate: Gate) -> None:
    """Groups of samples; without a KL term and on-policy, so that TRL computes no old or reference log-probs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = job.sizes
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        checkpoint.write(job.shape, directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
        model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
        rows = workload.tokens(job, 64, sizes.prompt_tokens, seed=1)
        config = GRPOConfig(
            output_dir=str(directory / "out"), use_cpu=True, bf16=False, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_steps=MANY, dataloader_num_workers=0, max_steps=MANY,
            per_device_train_batch_size=sizes.microbatch,
            gradient_accumulation_steps=sizes.sequences // sizes.microbatch,
            num_generations=sizes.group, max_completion_length=sizes.new_tokens, temperature=1.0,
            generation_kwargs={"min_new_tokens": sizes.new_tokens}, gradient_checkpointing=False,
            beta=0.0, learning_rate=1e-6, max_grad_norm=1.0,
        )  # fmt: skip
        turns = _Turns(gate)
        trainer = _Trainer(
            model=model,
            reward_funcs=lambda completions, **_: [float(len(set(text.split()))) for text in completions],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": workload.as_text(rows)}),
            processing_class=tokenizer,
            callbacks=[turns],
        )
        trainer.turns = turns
        trainer.train()


WORKS = {"grpo": grpo}
