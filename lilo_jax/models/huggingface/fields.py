"""Reading a `config.json` so that nothing in it is overlooked: what is not read must be known to be harmless."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lilo_jax.errors import UsageError

MOST = 2**31 - 1
"""Of a size of an array."""
REQUIRED = object()
"""Stands for «there is no default»."""

HARMLESS = {
    *(
        "architectures",
        "auto_map",
        "cache_implementation",
        "dtype",
        "model_type",
        "torch_dtype",
        "transformers_version",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    *("cls_token_id", "eot_token_id", "mask_token_id", "unk_token_id"),
    *("chat_template", "model_max_length", "padding_side"),
    *("attention_dropout", "classifier_dropout", "hidden_dropout", "initializer_range", "token_classification_bias"),
    *("finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params"),
    *("output_attentions", "output_hidden_states", "return_dict", "use_cache", "use_return_dict"),
    # what transformers 4 wrote into every config: settings of generation, and of other kinds of model
    *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping"),
    *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id"),
    *("length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams"),
    *("num_return_sequences", "output_scores", "prefix", "remove_invalid_values", "repetition_penalty"),
    *("return_dict_in_generate", "suppress_tokens", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "top_k"),
    *("top_p", "typical_p", "tokenizer_class", "torchscript", "use_bfloat16", "chunk_size_feed_forward"),
    *("add_cross_attention", "cross_attention_hidden_size", "is_decoder", "is_encoder_decoder", "pruned_heads"),
    # notes of other programs
    *("is_llama_config", "name_or_path", "transformers.js_config", "unsloth_fixed", "unsloth_version"),
}
"""Fields that do not change what the network computes without training-time noise."""


NEUTRAL = {
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rope_interleaved": False,
    "use_mrope": False,
}
"""Fields that files hold in families without them, and the value at which they say nothing."""


class Fields:
    """The fields of a `config.json`, each to be taken once."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        """Of the object in the file `where`, which messages name."""
        self._values, self.where = dict(values), where

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = REQUIRED) -> Any:
        """The value of a field; null counts as absent unless the default is None.

        Raises:
            UsageError: it is absent and has no default, or is of another type.
        """
        value = self._values.pop(name, None)
        if value is None:
            if default is REQUIRED:
                raise UsageError(f"{self.where} has no {name}: the file is incomplete")
            return default
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
            raise UsageError(f"{self.where}: {name} is {value!r}, which is of the wrong type")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """A field that holds a number."""
        value = self.take(name, (int, float), default)
        if not abs(value) <= sys.float_info.max:  # nor is NaN
            raise UsageError(f"{self.where}: {name} is not a number to compute with: correct it")
        return float(value)

    def positive(self, name: str, default: Any = REQUIRED) -> float:
        """A field that holds a number above 0."""
        value = self.number(name, default)
        if value <= 0:
            raise UsageError(f"{self.where}: {name} is {value:g}, but must be above 0")
        return value

    def size(self, name: str, default: Any = REQUIRED, *, most: int = MOST) -> int:
        """A field that holds a whole number of at least 1 and at most `most`."""
        value = self.take(name, int, default)
        if not 1 <= value <= most:
            raise UsageError(f"{self.where}: {name} is {str(value)[:20]}, but must be at least 1 and at most {most:,}")
        return value

    def says_null(self, name: str) -> bool:
        """Whether a field is there and null, which is not always the same as its default."""
        return name in self._values and self._values[name] is None

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._values.get(name) is not None

    def choice(self, name: str, table: Mapping[str, Any], default: str) -> Any:
        """What the table has under a field's value."""
        value = self.take(name, str, default)
        if value not in table:
            raise self.unsupported(name, value, f"known are {', '.join(sorted(table))}")
        return table[value]

    def only(self, name: str, allowed: Sequence[Any]) -> None:
        """Takes a field that may be absent, null or one of the allowed values."""
        value = self._values.pop(name, None)
        if value is not None and value not in allowed:
            raise self.unsupported(name, value, f"only {', '.join(map(repr, allowed))} is supported")

    def unsupported(self, name: str, value: Any, because: str) -> UsageError:
        """The error for a value that the decoder cannot represent."""
        return UsageError(f"{self.where}: {name} is {value!r}, which this decoder cannot represent: {because}")

    def finish(self, family: str) -> None:
        """Refuses what has not been taken and may matter."""
        left = [name for name, value in self._values.items() if not _harmless(name, value)]
        if left:
            raise UsageError(
                f"{self.where} has {', '.join(sorted(left))}, not known for {family}: it may change what the model "
                f"computes; delete it from the file if it does not"
            )


def _harmless(name: str, value: Any) -> bool:
    if value is None or name in HARMLESS or name.startswith("_"):
        return True
    return name in NEUTRAL and value == NEUTRAL[name]
