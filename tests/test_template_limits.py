"""Chat templates that want all time or all memory end their own process, soon, and a user reads one sentence."""

import os
import resource
import subprocess
import sys
import textwrap
import time

import pytest

from lilo_jax.errors import RunError, UsageError
from lilo_jax.tokenizers import rendering, template
from lilo_jax.tokenizers.template import ChatTemplate

USER = {"role": "user", "content": "x"}
TIME = "is not done after 3 seconds"
MEMORY = "needs more than 512 MiB of memory"
SIZE = "more than 4,194,304"
R = "range(99999)"
ATTACKS = {
    "loops in loops": (f"{{% for a in {R} %}}{{% for b in {R} %}}{{% endfor %}}{{% endfor %}}", TIME),
    "loops that write": (f"{{% for a in {R} %}}{{% for b in {R} %}}x{{% endfor %}}{{% endfor %}}", "correct it"),
    "a power": ("{{ 10 ** (10 ** 9) }}", TIME),
    "a power of a variable": ("{% set n = 10 ** 9 %}{{ (7 ** n) % 10 }}", TIME),
    "powers in a loop": (f"{{% set n = 99999 %}}{{% for a in {R} %}}{{% set b = 7 ** n %}}{{% endfor %}}", TIME),
    "a text times a number": ("{{ 'a' * 10 ** 9 }}", MEMORY),
    "a text times a variable": ("{% set n = 10 ** 9 %}{{ 'a' * n }}", MEMORY),
    "a long text": ("{{ 'a' * 10 ** 8 }}", SIZE),
    "a list times a number": ("{% set n = 10 ** 9 %}{{ ([0] * n) | length }}", MEMORY),
    "a tuple": ("{{ ((0,) * 10 ** 9) | length }}", MEMORY),
    "center": ("{{ 'a' | center(10 ** 9) }}", MEMORY),
    "center of a variable": ("{% set n = 10 ** 10 %}{{ messages[0].content | center(n) }}", MEMORY),
    "ljust": ("{{ messages[0].content.ljust(10 ** 9) }}", MEMORY),
    "zfill": ("{{ messages[0].content.zfill(10 ** 9) }}", MEMORY),
    "format": ("{{ '{:>1000000000}'.format(1) }}", MEMORY),
    "the filter format": ("{{ '%1000000000d' | format(1) }}", MEMORY),
    "percent": ("{{ '%*d' % (10 ** 9, 1) }}", MEMORY),
    "indent": ("{% set n = 10 ** 9 %}{{ 'a\nb' | indent(n) }}", MEMORY),
    "replace": ("{% set a = 'a' * 10 ** 5 %}{{ a.replace('a', a) }}", MEMORY),
    "join": (f"{{{{ {R} | join('a' * 10 ** 5) }}}}", MEMORY),
    "expandtabs": ("{{ '\t'.expandtabs(10 ** 9) }}", MEMORY),
    "batch": ("{{ [1] | batch(10 ** 9, 0) | list | length }}", MEMORY),
    "slice": (f"{{% for a in {R} %}}{{% set b = [1] | slice(10 ** 7) | list %}}{{% endfor %}}", "correct it"),
    "doubling": (
        "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", MEMORY,
    ),
    "lists that grow": (
        "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", MEMORY,
    ),
    "a macro without end": ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
    "macros that branch": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}", TIME,
    ),
    "a recursive loop": ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "RecursionError"),
    "a long range": ("{{ range(10 ** 9) | list | length }}", "OverflowError"),
    "deep brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "chat template"),
    "deep blocks": ("{% if 1 %}" * 500 + "{% endif %}" * 500, "chat template"),
    "digits": ("{{ (10 ** 5000) | string }}", "ValueError"),
    "lipsum": ("{{ lipsum(n=10 ** 6) | length }}", "correct it"),
    "cycles of json": (f"{{% for a in {R} %}}{{{{ messages | tojson(indent=10000) }}}}{{% endfor %}}", "correct it"),
    "sums": (f"{{{{ {R} | map('string') | sum(start='') }}}}", "TypeError"),
    "sorts": (f"{{% for a in {R} %}}{{% set b = {R} | sort(reverse=true) %}}{{% endfor %}}", TIME),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    template._RENDERER.end()


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_template_that_wants_everything_ends_soon_and_gets_little(attack):
    source, says = ATTACKS[attack]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UsageError, match=says) as caught:
        ChatTemplate(source).render([USER], add_generation_prompt=True)
    assert time.monotonic() - began < 20  # 4 of processor time; the machine may be busy
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert "\n" not in str(caught.value)
    assert ChatTemplate("{{ messages[0].content }}").render([USER], add_generation_prompt=True) == "x"


def test_the_time_is_that_of_one_rendering():
    """Many renderings together may take longer than one may."""
    slow = ChatTemplate(f"{{% for a in {R} %}}{{% for b in range(40) %}}{{% endfor %}}{{% endfor %}}")
    slow.render([USER], add_generation_prompt=True)
    process = template._RENDERER._process
    began = time.monotonic()
    while time.monotonic() - began < 5:
        slow.render([USER], add_generation_prompt=True)
    assert template._RENDERER._process is process


def test_one_process_renders_everything():
    ChatTemplate("a").render([USER], add_generation_prompt=True)
    process = template._RENDERER._process
    for i in range(50):
        text = "ü\ud800\U0001f600" * i
        assert ChatTemplate("{{ messages[0].content }}" + str(i)).render(
            [{"role": "user", "content": text}], add_generation_prompt=True
        ) == text + str(i)
    assert template._RENDERER._process is process


def test_a_process_that_was_killed_is_replaced():
    ChatTemplate("a").render([USER], add_generation_prompt=True)
    template._RENDERER._process.kill()
    with pytest.raises(UsageError, match="ends its process"):
        ChatTemplate("a").render([USER], add_generation_prompt=True)
    assert ChatTemplate("a").render([USER], add_generation_prompt=True) == "a"


def test_a_process_that_does_not_start_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="does not start"):
        ChatTemplate("a").render([USER], add_generation_prompt=True)


@pytest.mark.slow
def test_it_dies_with_its_parent():
    """Even if that is killed while a template runs."""
    program = """
        import os, threading, time
        from lilo_jax.tokenizers import template
        def render():
            template.ChatTemplate("{{ 10 ** (10 ** 9) }}").render([], add_generation_prompt=True)
        threading.Thread(target=render, daemon=True).start()
        while template._RENDERER._process is None:
            time.sleep(0.01)
        time.sleep(1)
        print(template._RENDERER._process.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    pid = int(done.stdout)
    began = time.monotonic()
    while _lives(pid) and time.monotonic() - began < 30:
        time.sleep(0.1)
    assert not _lives(pid)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # nobody may have waited for it
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_rendering_in_this_process_is_the_same():
    """The tables of errors are of `render` itself; the process adds only its limits."""
    assert rendering.render("{{ a }}", {"a": 1}) == {"text": "1"}
    assert "not valid jinja2 (line 1" in rendering.render("{% for %}", {})["error"]
