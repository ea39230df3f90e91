"""What was paid for, in tokens and operations, by purpose: the account against which every curve can be drawn."""

import collections
import dataclasses
from collections.abc import Mapping

PURPOSES = ("sft", "train", "screen", "rejected", "follow_up", "evaluation", "audit", "features")
MEASUREMENT = ("evaluation", "audit")
"""Purposes that change nothing that is trained: shown, but in no budget of training."""
KINDS = ("prefilled", "generated", "scored", "trained")
SAVED = ("follow_up", "saved")
"""The one entry that is no cost."""
_ENTRIES = (*((purpose, kind) for purpose in PURPOSES for kind in KINDS), SAVED)


@dataclasses.dataclass
class Ledger:
    """Cumulative token counts, and the operations that they take.

    Kinds: `prefilled`, prompt tokens run once per distinct prompt; `generated`, sampled tokens, end tokens included;
    `scored`, tokens run forward without a gradient, once per model (policy, reference, critic); `trained`, tokens run
    forward and backward, once per epoch and model.  `flops`: what all of these take.

    Purposes, each rollout having one:
        sft: fine-tuning on demonstrations.
        train: rollouts that were trained on, their scoring and the updates.
        screen: rollouts of groups that were not trained on and were given up before they had the rollouts that a
            trained group has (`rollout.samples`), or that were made before training to grade the questions.
        rejected: rollouts of groups that had as many, or more, and were not trained on either.
        follow_up: an algorithm's own extra rollouts.  Its `saved` are tokens that were not sampled because fewer
            rollouts of a state were enough, at the mean length of the state's others.
        evaluation: on held-out questions.
        audit: rollouts of training questions that only measure what a curriculum believes.
        features: forward passes that only describe questions to a curriculum.

    Attributes:
        counts: tokens by (purpose, kind).
        token_flops: operations per token of each kind; see `lilo_jax.device.flops.token_flops`.
    """

    counts: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    token_flops: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def add(self, purpose: str, kind: str, tokens: float) -> None:
        """Books tokens, in whole ones; the entry must be known."""
        if (purpose, kind) not in _ENTRIES:
            raise ValueError(f"no ledger entry {purpose}/{kind}")
        self.counts[purpose, kind] += int(tokens)

    def flops(self, purpose: str) -> int:
        """Operations of a purpose: tokens of each kind times what one of them takes."""
        return sum(self.counts[purpose, kind] * self.token_flops.get(kind, 0) for kind in KINDS)

    def generated(self) -> int:
        """Tokens sampled for training: everything but evaluation and audit, without which it would be the same run."""
        return training_total(self.to_dict(), "generated")

    def to_dict(self) -> dict[str, int]:
        """`{"train/generated": 123, ..., "train/flops": 456, ...}` with every entry, in a fixed order."""
        tokens = {f"{purpose}/{kind}": self.counts[purpose, kind] for purpose, kind in _ENTRIES}
        return tokens | {f"{purpose}/flops": self.flops(purpose) for purpose in PURPOSES}

    @classmethod
    def from_dict(cls, values: Mapping[str, int], token_flops: Mapping[str, int] | None = None) -> "Ledger":
        """The inverse of `to_dict`, whose operations are counted anew; entries that are missing are zero."""
        counts = {entry: int(values.get("/".join(entry), 0)) for entry in _ENTRIES}
        return cls(collections.Counter(counts), token_flops or {})


def training_total(entries: Mapping[str, int], kind: str) -> int:
    """The sum of a kind, or of `flops`, over all purposes but those of `MEASUREMENT`; missing entries are zero."""
    return sum(entries.get(f"{purpose}/{kind}", 0) for purpose in PURPOSES if purpose not in MEASUREMENT)
