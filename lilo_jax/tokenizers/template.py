"""Chat templates: programs that come with a model, run in a sandbox."""

import dataclasses
import datetime
import functools
import json
from collections.abc import Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lilo_jax.errors import UsageError

Message = dict[str, Any]
"""{"role": ..., "content": ...}."""


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote; its content is rendered as if the tag were not there."""

    tags = {"generation"}  # noqa: RUF012, jinja2's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens that it may name.

    Attributes:
        source: of the template, in jinja2.
        tokens: name of a special token ("bos_token", ...) to its text.
    """

    source: str
    tokens: tuple[tuple[str, str], ...] = ()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool, **variables: Any) -> str:
        """The text of a conversation.

        Args:
            messages: the turns, in order.
            add_generation_prompt: whether the beginning of an assistant's turn follows.
            **variables: others that the template reads.

        Raises:
            UsageError: the template is broken, refuses the messages, or does what the sandbox forbids.
        """
        # Templates ask whether tools and documents are none: transformers defines both.
        given = {"tools": None, "documents": None} | dict(self.tokens) | variables
        try:
            return _compiled(self.source).render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **given
            )
        except UsageError:
            raise
        except Exception as error:  # a template is a program of somebody else's: it may raise anything
            said = " ".join(str(error).split())
            raise UsageError(f"the chat template refuses the conversation ({type(error).__name__}: {said})") from None


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the chat template is not valid jinja2 (line {error.lineno}: {error.message})") from None


def _to_json(value: Any, ensure_ascii: bool = False, **form: Any) -> str:
    """As it is: jinja2's own filter would escape it for HTML, and takes neither separators nor sort_keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **form)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
