"""What the JSON files beside a tokenizer say: special tokens, end ids, the chat template."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from lilo_jax.errors import UsageError
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.paths import AnyPath
from lilo_jax.tokenizers.protocol import SpecialIds
from lilo_jax.tokenizers.template import ChatTemplate

Files = Mapping[str, bytes]
"""Name to content of the files that make a tokenizer."""

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


def write_files(files: Files, directory: AnyPath) -> None:
    """Writes the files of a tokenizer, byte for byte, to a directory that need not exist."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a tokenizer.

    Attributes:
        tokens: name of a special token ("bos_token", ...) to its text.
        add_bos: what `add_bos_token` says; None if it says nothing.
        end_ids: of `generation_config.json`; empty if it names none.
        pad_id: the same, or None.
        chat: template, or None.
    """

    tokens: Mapping[str, str]
    add_bos: bool | None
    end_ids: tuple[int, ...]
    pad_id: int | None
    chat: ChatTemplate | None


def read_settings(files: Files) -> Settings:
    """The settings in these files; there may be none.

    Raises:
        UsageError: a file is not JSON.
    """
    config, generation = _json(files, "tokenizer_config.json"), _json(files, "generation_config.json")
    named = _json(files, "special_tokens_map.json") | config
    tokens = {name: text for name, value in named.items() if name.endswith("_token") and (text := _text(value))}
    return Settings(
        tokens=tokens,
        add_bos=config.get("add_bos_token"),
        end_ids=id_list(generation.get("eos_token_id")),
        pad_id=_pad_id(generation.get("pad_token_id")),
        chat=_chat_template(files, config, tokens),
    )


def special_ids(
    settings: Settings, id_of: Callable[[str], int | None], *, begin: tuple[int, ...], size: int
) -> SpecialIds:
    """The ids of a tokenizer with `size` ids whose own files add `begin` before a text.

    Raises:
        UsageError: nothing says what ends a text, or an id that it does not have.
    """

    def named(name: str) -> int | None:
        return id_of(settings.tokens[name]) if name in settings.tokens else None

    bos, eos, pad = named("bos_token"), named("eos_token"), named("pad_token")
    if settings.add_bos is not None:
        begin = (bos,) if settings.add_bos and bos is not None else ()
    end = settings.end_ids or (() if eos is None else (eos,))
    if not end:
        raise UsageError(
            "nothing says which token ends a text: add eos_token_id to generation_config.json or eos_token to "
            "tokenizer_config.json"
        )
    if beyond := [i for i in end if not 0 <= i < size]:
        raise UsageError(
            f"eos_token_id {beyond[0]} in generation_config.json or config.json is no id of the tokenizer, which has "
            f"{size}: correct it there"
        )
    if pad is not None:
        rule = f"{settings.tokens['pad_token']} ({pad})"
    elif settings.pad_id is not None and 0 <= settings.pad_id < size:  # -1 is written for none
        pad, rule = settings.pad_id, f"id {settings.pad_id}, of generation_config.json"
    else:
        pad, rule = end[0], f"no pad token, so the end token ({end[0]})"
    return SpecialIds(begin, end, pad, f"{rule}; masks go by length, so its choice changes no number")


def generation_config(files: Files, model_config: Mapping[str, Any]) -> bytes | None:
    """A `generation_config.json` that also says what older models say in `config.json` alone; None: neither says it."""
    own = _json(files, "generation_config.json")
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    theirs = {name: model_config[name] for name in names if model_config.get(name) is not None}
    if own.get("eos_token_id") is not None or not theirs:
        return files.get("generation_config.json")
    return to_json(own | theirs, indent=2).encode()


def id_list(value: Any) -> tuple[int, ...]:
    """Ids in their order, without repetition.

    Raises:
        UsageError: it is neither an id nor a list of ids.
    """
    ids = [value] if isinstance(value, int) else [] if value is None else value
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise UsageError(f"eos_token_id is {value!r}: write an id or a list of ids")
    return tuple(dict.fromkeys(ids))


def _pad_id(value: Any) -> int | None:
    if value is not None and not isinstance(value, int):
        raise UsageError(f"pad_token_id is {value!r}: write an id, or leave it out")
    return value


def _json(files: Files, name: str) -> dict[str, Any]:
    try:
        values = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{name} is not a JSON object")
    return values


def _text(token: Any) -> str | None:
    """Of a special token, which is written as a string or as an object with `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _chat_template(files: Files, config: Mapping[str, Any], tokens: Mapping[str, str]) -> ChatTemplate | None:
    source: Any = config.get("chat_template")
    if "chat_template.jinja" in files:
        try:
            source = files["chat_template.jinja"].decode()
        except UnicodeDecodeError:
            raise UsageError("chat_template.jinja is not UTF-8 text: get it again") from None
    if isinstance(source, list):
        named = (one for one in source if isinstance(one, dict) and one.get("name") == "default")
        source = next(named, {}).get("template")
    return ChatTemplate(source, tuple(sorted(tokens.items()))) if isinstance(source, str) else None
