"""Chat templates: programs that come with a model, run in a sandbox and in a process with limits of its own."""

import atexit
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

from lilo_jax.errors import RunError, UsageError
from lilo_jax.tokenizers import rendering

Message = dict[str, Any]
"""{"role": ..., "content": ...}."""

PATIENCE = 60.0
"""Seconds for an answer, should the limit of processor time not hold."""
MOST_BYTES = 12 * rendering.LONGEST + 1000
"""Of an answer, in which a character may become two escapes of six bytes."""


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
            **variables: others that the template reads, of what JSON can say.

        Raises:
            UsageError: the template is broken, refuses the messages, does what the sandbox forbids, or needs more time
                or memory than it may take.
        """
        # Templates ask whether tools and documents are none: transformers defines both.
        given = {"tools": None, "documents": None} | dict(self.tokens) | variables
        given |= {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        answer = _RENDERER.ask({"source": self.source, "variables": given})
        if "error" in answer:
            raise UsageError(answer["error"])
        return answer["text"]


class _Renderer:
    """The process that renders, started when it is first needed, and anew after each time that it had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, str]:
        """The answer to a request of `rendering.render`."""
        message = json.dumps(request, allow_nan=False).encode()
        with self._lock:
            connection = self._connection or self._start()
            try:
                connection.send_bytes(message)
                if connection.poll(PATIENCE):
                    return json.loads(connection.recv_bytes(MOST_BYTES))
                reason = f"is not done after {PATIENCE:g} seconds"
            except (EOFError, OSError):
                reason = self._cause_of_death()
            self.end()
            return {"error": f"the chat template {reason}: correct it"}

    def _start(self) -> Connection:
        """A process of its own command: this one may hold devices and threads, and is never forked."""
        self._connection, theirs = Pipe()
        # Not with the directory of the script in front, whose modules have names of other packages.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", rendering.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it: it ends when we do
        )
        theirs.close()
        try:
            ready = self._connection.poll(PATIENCE) and self._connection.recv_bytes() == rendering.READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.end()
            raise RunError("the process that renders chat templates does not start: is there memory left for it?")
        return self._connection

    def _cause_of_death(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return f"is not done after {rendering.SECONDS} seconds"
        return f"ends its process ({signal.strsignal(-status) if status < 0 else f'status {status}'})"

    def end(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None


_RENDERER = _Renderer()
atexit.register(_RENDERER.end)
os.register_at_fork(after_in_child=_RENDERER.__init__)  # type: ignore[misc]  # a fork has its own
