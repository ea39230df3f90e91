"""The process in which chat templates run, so that one that never ends, or fills the memory, ends only itself.

`template.py` starts it as a script: it imports jinja2 and nothing of the project.  It answers one request after another
until the other end of its connection is closed, as it is when its parent has died in whatever way.
"""

import contextlib
import datetime
import functools
import json
import resource
import sys
from multiprocessing.connection import Connection
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 3
"""Processor time of one rendering; a template needs less than a thousandth of it."""
MEMORY = 512 << 20
"""Bytes of address space of the process, of which it needs a tenth.  macOS does not keep to such a limit: there only
the time ends what fills the memory."""
LONGEST = 4 << 20
"""Characters of a rendered conversation."""

READY = b"ready"
"""The first thing that the process says."""


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote; its content is rendered as if the tag were not there."""

    tags = {"generation"}  # noqa: RUF012, jinja2's interface

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return environment.from_string(source)


def _to_json(value: Any, ensure_ascii: bool = False, allow_nan: bool = True, **form: Any) -> str:
    """As it is: jinja2's own filter would escape it for HTML, and takes neither separators nor sort_keys."""
    return json.dumps(value, ensure_ascii=ensure_ascii, allow_nan=allow_nan, **form)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def render(source: str, variables: dict[str, Any]) -> dict[str, str]:
    """The answer to a request: `text`, or in `error` what a user is to be told."""
    try:
        text = _compiled(source).render(**variables)
    except jinja2.TemplateSyntaxError as error:
        return {"error": f"the chat template is not valid jinja2 (line {error.lineno}: {error.message})"}
    except MemoryError:
        raise
    except Exception as error:  # a template is a program of somebody else's: it may raise anything
        said = " ".join(str(error)[:1000].split())
        return {"error": f"the chat template refuses the conversation ({type(error).__name__}: {said})"}
    if len(text) > LONGEST:
        return {"error": f"the chat template writes {len(text):,} characters, more than {LONGEST:,}: correct it"}
    return {"text": text}


def answer(request: bytes) -> bytes:
    """What `render` answers, both as JSON."""
    try:
        found = render(**json.loads(request))
    except MemoryError:
        found = {"error": f"the chat template needs more than {MEMORY >> 20} MiB of memory: correct it"}
    return json.dumps(found, allow_nan=False).encode()


def _limit(kind: int, amount: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower one that was set before stays
        resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))


def _limit_time() -> None:
    """Allows so much processor time from now on; the system ends the process then, whatever it is doing."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS + 1)


def main() -> None:
    """Answers requests; the argument is the file descriptor of the connection."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY)
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(READY)
        while True:
            request = connection.recv_bytes()
            _limit_time()
            connection.send_bytes(answer(request))


if __name__ == "__main__":
    main()
