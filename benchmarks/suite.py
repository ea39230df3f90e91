"""The experiments: which arms stand side by side, and what their work amounts to."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from benchmarks import flops, workload
from benchmarks.arena import Arm
from benchmarks.workload import Device, Dtype, Job, Shape, Sizes

OURS = "benchmarks.ours"
ROOFLINE = "benchmarks.roofline"
PEERS = {name: f"benchmarks.contenders.{name}" for name in ("hf", "trl", "tunix")}
ITEMSIZE = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all experiments of one command have in common.

    Attributes:
        shape, sizes, device, dtype: as in `Job`.
        pythons: contender ("ours" or a peer that takes part) to its interpreter.
    """

    shape: Shape
    sizes: Sizes
    pythons: Mapping[str, str]
    device: Device = "cpu"
    dtype: Dtype = "float32"

    def arms(
        self, work: str, variants: Mapping[str, str], *, tokens: int, flops: int = 0, traffic: int = 0
    ) -> list[Arm]:
        """An arm for each contender named by `variants` ("ours", or "ours: how") that takes part."""
        found = []
        for name, variant in variants.items():
            contender = name.split(":")[0]
            if contender in self.pythons:
                job = Job(work, variant, self.shape, self.sizes, self.device, self.dtype)
                module = PEERS.get(contender, OURS)
                found.append(Arm(name, module, self.pythons[contender], job, tokens, flops, traffic))
        return found


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Arms that run in alternation; the first is what the others are compared with."""

    name: str
    title: str
    arms: list[Arm]


def parity(setting: Setting) -> list[Experiment]:
    """Whether all compute the same function of the same weights; in float32, where that can be seen."""
    sizes = dataclasses.replace(setting.sizes, sequences=2, microbatch=2)
    setting = dataclasses.replace(setting, sizes=sizes, dtype="float32")
    arms = setting.arms("parity", dict.fromkeys(("ours", "hf", "tunix"), ""), tokens=1)
    return [Experiment("parity", "Log-probs of two sequences", arms)]


def _rollout(setting: Setting, variant: str, names: tuple[str, ...]) -> list[Arm]:
    shape, sizes = setting.shape, setting.sizes
    distinct = sizes.rows // (sizes.group if variant == "groups" else 1)
    starts, new = np.full(sizes.rows, sizes.prompt_tokens), np.full(sizes.rows, sizes.new_tokens)
    return setting.arms(
        "rollout",
        dict.fromkeys(names, variant),
        tokens=int(new.sum()),
        flops=flops.rollout(shape, prefixes=np.full(distinct, sizes.prompt_tokens), starts=starts, new=new),
        traffic=flops.decode_bytes(shape, starts=starts, new=new, slots=sizes.rows, itemsize=ITEMSIZE[setting.dtype]),
    )


def rollout(setting: Setting) -> list[Experiment]:
    """Sampling: distinct prompts, and groups that share one."""
    sizes = setting.sizes
    what = f"{sizes.prompt_tokens} + {sizes.new_tokens} tokens"
    return [
        Experiment(
            "rollout_distinct",
            f"Rollout: {sizes.rows} distinct prompts, {what}",
            _rollout(setting, "distinct", ("ours", "hf", "tunix")),
        ),
        Experiment(
            "rollout_groups",
            f"Rollout: {sizes.rows // sizes.group} prompts x {sizes.group} samples, {what}",
            _rollout(setting, "groups", ("ours", "hf")),
        ),
    ]


def lengths(setting: Setting) -> list[Experiment]:
    """Sampling requests of very unequal length."""
    shape, sizes = setting.shape, setting.sizes
    new = workload.budgets(sizes)
    starts = np.full(len(new), sizes.prompt_tokens)
    arms = setting.arms(
        "lengths",
        {"ours": "slots", "ours: fixed batches": "fixed", "hf": "fixed"},
        tokens=int(new.sum()),
        flops=flops.rollout(shape, prefixes=starts, starts=starts, new=new),
        traffic=flops.decode_bytes(shape, starts=starts, new=new, slots=sizes.slots, itemsize=ITEMSIZE[setting.dtype]),
    )
    title = (
        f"Rollout: {len(new)} requests of log-normal length (mean {new.mean():.1f}, longest {new.max()}) "
        f"over {sizes.slots} slots"
    )
    return [Experiment("lengths", title, arms)]


def monte_carlo(setting: Setting) -> list[Experiment]:
    """Restarting trajectories from inside, as Monte-Carlo value estimates do."""
    shape, sizes = setting.shape, setting.sizes
    boundaries = np.array(workload.boundaries(sizes))
    starts = np.tile(np.repeat(boundaries, sizes.children), sizes.trajectories)
    new = np.full(len(starts), sizes.child_tokens)
    arms = setting.arms(
        "monte_carlo",
        {"ours": "shared", "ours: each child on its own": "unshared", "hf": "unshared"},
        tokens=int(new.sum()),
        flops=flops.rollout(shape, prefixes=np.full(sizes.trajectories, boundaries[-1]), starts=starts, new=new),
        traffic=flops.decode_bytes(shape, starts=starts, new=new, slots=sizes.rows, itemsize=ITEMSIZE[setting.dtype]),
    )
    title = (
        f"Monte-Carlo phase: {sizes.trajectories} trajectories of {sizes.sequence_tokens} tokens x "
        f"{sizes.boundaries} boundaries x {sizes.children} children of {sizes.child_tokens} tokens"
    )
    return [Experiment("monte_carlo", title, arms)]


def _teacher_forced(setting: Setting, work: str, variants: dict[str, str], title: str) -> list[Experiment]:
    sizes = setting.sizes
    count = {"scoring": flops.scoring, "update": flops.update}[work]
    arms = setting.arms(
        work,
        variants,
        tokens=sizes.sequences * sizes.sequence_tokens,
        flops=count(
            setting.shape, rows=sizes.sequences, prompt_tokens=sizes.prompt_tokens, new_tokens=sizes.new_tokens
        ),
    )
    what = f"{sizes.sequences} sequences of {sizes.prompt_tokens} + {sizes.new_tokens}, {sizes.microbatch} at a time"
    return [Experiment(work, f"{title}: {what}", arms)]


def scoring(setting: Setting) -> list[Experiment]:
    """Teacher-forced log-probs."""
    return _teacher_forced(setting, "scoring", dict.fromkeys(("ours", "hf", "tunix"), ""), "Scoring")


def update(setting: Setting) -> list[Experiment]:
    """One optimiser step: distinct prompts, and groups that share one."""
    alone = _teacher_forced(setting, "update", {"ours": "", "ours: least memory": "lean", "hf": ""}, "Update")
    return [*alone, _update_groups(setting)]


def _update_groups(setting: Setting) -> Experiment:
    """The update of a group is the same whether its prompt is computed once, as ours does, or once a sample."""
    shape, sizes = setting.shape, setting.sizes
    groups, prompt = sizes.sequences // sizes.group, sizes.prompt_tokens
    needed = flops.update(shape, rows=sizes.sequences, prompt_tokens=prompt, new_tokens=sizes.new_tokens)
    needed -= flops.update(shape, rows=sizes.sequences - groups, prompt_tokens=prompt, new_tokens=0)
    tokens = sizes.sequences * sizes.sequence_tokens
    arms = setting.arms("update", dict.fromkeys(("ours", "hf"), "groups"), tokens=tokens, flops=needed)
    what = f"{groups} prompts x {sizes.group} samples, {sizes.prompt_tokens} + {sizes.new_tokens} tokens"
    return Experiment("update_groups", f"Update: {what}, {sizes.microbatch} sequences at a time", arms)


def grpo(setting: Setting) -> list[Experiment]:
    """Generation, reward and update in one."""
    shape, sizes = setting.shape, setting.sizes
    groups = sizes.sequences // sizes.group
    starts, new = np.full(sizes.sequences, sizes.prompt_tokens), np.full(sizes.sequences, sizes.new_tokens)
    generation = flops.rollout(shape, prefixes=np.full(groups, sizes.prompt_tokens), starts=starts, new=new)
    learning = flops.update(shape, rows=sizes.sequences, prompt_tokens=sizes.prompt_tokens, new_tokens=sizes.new_tokens)
    arms = setting.arms(
        "grpo",
        dict.fromkeys(("ours", "trl", "tunix"), ""),
        tokens=sizes.sequences * sizes.new_tokens,
        flops=generation + learning,
    )
    title = (
        f"Whole GRPO step: {groups} prompts x {sizes.group} samples, {sizes.prompt_tokens} + {sizes.new_tokens} tokens"
    )
    return [Experiment("grpo", title, arms)]


def growth(setting: Setting) -> list[Experiment]:
    """Our own cost per token as one thing grows: batch, length, vocabulary."""
    sizes, shape = setting.sizes, setting.shape

    def points(label: str, variants: list[tuple[int, Shape, Sizes]]) -> list[Arm]:
        found = []
        for value, shape, sizes in variants:
            (arm,) = _rollout(dataclasses.replace(setting, shape=shape, sizes=sizes), "distinct", ("ours",))
            found.append(dataclasses.replace(arm, name=f"{label} {value}"))
        return found

    batch = [(n, shape, dataclasses.replace(sizes, rows=n)) for n in (sizes.rows // 4, sizes.rows, 2 * sizes.rows)]
    length = [
        (n, shape, dataclasses.replace(sizes, new_tokens=n))
        for n in (sizes.new_tokens // 4, sizes.new_tokens, 2 * sizes.new_tokens)
    ]
    vocabulary = [
        (n, dataclasses.replace(shape, vocab_size=n), sizes)
        for n in (shape.vocab_size // 4, shape.vocab_size, 4 * shape.vocab_size)
    ]
    return [
        Experiment(f"growth_{name}", f"Growth of our rollout with {title}", points(label, variants))
        for name, title, label, variants in (
            ("batch", "the batch", "rows", batch),
            ("length", "the length", "new tokens", length),
            ("vocabulary", "the vocabulary", "words", vocabulary),
        )
    ]


EXPERIMENTS = {
    "parity": parity,
    "rollout": rollout,
    "lengths": lengths,
    "monte_carlo": monte_carlo,
    "scoring": scoring,
    "update": update,
    "grpo": grpo,
    "growth": growth,
}
"""Name on the command line to the function that sets it up, in the order they run."""
