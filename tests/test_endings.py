"""However a command ends, a user reads one line; secrets and numbers that are none stay out of what is written."""

import ast
import errno
import json
import pathlib
import subprocess
import sys

import jax
import pytest

from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum import CURRICULA
from lilo_jax.errors import RunError, Stopped, UsageError
from lilo_jax.processes.endings import exit_with_message
from lilo_jax.rl import ALGORITHMS
from lilo_jax.storage.json_lines import to_json
from lilo_jax.storage.redaction import HIDDEN, redacted
from lilo_jax.tasks import TASKS
from lilo_jax.training.opening import open_run

ROOT = pathlib.Path(__file__).parent.parent


def raising(error):
    def main():
        raise error

    return main


def nested():
    return nested()


OUT_OF_MEMORY = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nmore\nlines")
ENDINGS = {
    "usage": (raising(UsageError("wrong: do this")), 2, "error: wrong: do this"),
    "run": (raising(RunError("stopped")), 1, "error: stopped"),
    "two lines": (raising(UsageError("no file at a\nb")), 2, "error: no file at a b"),
    "interrupted": (raising(KeyboardInterrupt()), 130, "error: interrupted"),
    "disk full": (raising(OSError(errno.ENOSPC, "x", "/d/f")), 1, "error: /d/f: no space is left there"),
    "disk full in a library": (raising(ValueError("a\nNo space left on device [OS error 28]")), 1, "error: no space"),
    "denied": (raising(PermissionError(errno.EACCES, "x", "/d")), 1, "error: /d: you may not do that there"),
    "read-only": (raising(OSError(errno.EROFS, "x", "/d")), 1, "error: /d: nothing can be written there"),
    "long name": (raising(OSError(errno.ENAMETOOLONG, "x", "/d")), 1, "error: /d: the name is too long"),
    "directory": (raising(IsADirectoryError(errno.EISDIR, "x", "/d")), 1, "error: /d: it is a directory"),
    "pipe of another": (raising(BrokenPipeError(errno.EPIPE, "gone")), 1, "error: the system refuses"),
    "other": (raising(OSError("the library's own")), 1, "error: the system refuses: the library's own"),
    "memory": (raising(MemoryError()), 1, "error: the machine has not enough memory"),
    "device memory": (raising(OUT_OF_MEMORY), 1, "error: the device has not enough memory: for a run raise"),
    "no device": (raising(RuntimeError("Unable to initialize backend 'tpu'")), 1, "JAX_PLATFORMS"),
    "recursion": (nested, 1, "error: something that was read is nested too deeply"),
    "unicode": (lambda: "\ud800".encode(), 1, "error: there is text that cannot be written"),
    "a fault": (lambda: {}["x"], 1, "error: KeyError: 'x'; this is a fault of lilo_jax: run again with --debug"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_every_error_is_one_line_with_a_status(case, monkeypatch, capsys):
    main, status, says = ENDINGS[case]
    monkeypatch.setattr(sys, "argv", ["prog"])
    with pytest.raises(SystemExit) as caught:
        exit_with_message(main)
    err = capsys.readouterr().err
    assert caught.value.code == status
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_was_asked_for_is_no_error(monkeypatch, capsys):
    def main():
        raise Stopped("stopped at --max-seconds", 0)

    monkeypatch.setattr(sys, "argv", ["prog"])
    with pytest.raises(SystemExit) as caught:
        exit_with_message(main)
    assert caught.value.code == 0
    assert capsys.readouterr().err == "stopped at --max-seconds\n"


@pytest.mark.parametrize("case", ENDINGS)
def test_debug_shows_where(case, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prog", "--debug"])
    with pytest.raises((Exception, KeyboardInterrupt)) as caught:
        exit_with_message(ENDINGS[case][0])
    assert not isinstance(caught.value, SystemExit)


def test_a_status_of_its_own_passes(monkeypatch, capsys):
    class Stopped(RunError):
        status = 143

    for error in (Stopped("saved"), SystemExit(143)):
        monkeypatch.setattr(sys, "argv", ["prog"])
        with pytest.raises(SystemExit) as caught:
            exit_with_message(raising(error))
        assert caught.value.code == 143


def test_a_reader_that_goes_away_ends_a_command_in_silence():
    program = (
        "from lilo_jax.processes.endings import exit_with_message as e\n"
        "e(lambda: [print('x' * 999) for _ in range(9999)])"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert command.stdout.readline() == "x" * 999 + "\n"
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait() == 141


def test_an_error_that_a_library_prints_by_itself_is_not_heard():
    """As threads of C++ do, which have nobody to raise it to: they hand it to `sys.excepthook`."""
    program = (
        "import sys\n"
        "from lilo_jax.processes.endings import exit_with_message as e\n"
        "e(lambda: sys.excepthook(RuntimeError, RuntimeError('Event loop is closed'), None))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


ENTRY_POINTS = sorted(
    path
    for folder in ("experiments", "benchmarks", "lilo_jax")
    for path in (ROOT / folder).rglob("*.py")
    if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
OWN_WORKERS = {"benchmarks/worker.py", "lilo_jax/tokenizers/rendering.py"}
"""Processes that a user does not start; their stderr goes to a log, or nowhere."""


@pytest.mark.parametrize("path", ENTRY_POINTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_entry_point_ends_so(path):
    text = path.read_text(encoding="utf-8")
    assert len(ENTRY_POINTS) > 10
    assert "exit_with_message(" in text or str(path.relative_to(ROOT)) in OWN_WORKERS


# ----------------------------------------------------------------------------------------------------------------- JSON
def test_numbers_that_are_none_are_null():
    value = {"a": float("nan"), "b": [1.0, float("inf"), {"c": -float("inf")}], "d": (2, "NaN"), "e": None}
    assert json.loads(to_json(value)) == {"a": None, "b": [1.0, None, {"c": None}], "d": [2, "NaN"], "e": None}


def test_nothing_writes_json_that_is_none():
    """Outside of `to_json` every call says that NaN is not allowed, or, explicitly, that it is."""
    loose = []
    for folder in ("lilo_jax", "experiments", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    called = ast.unparse(node.func)
                    said = {keyword.arg for keyword in node.keywords}
                    if called in ("json.dump", "json.dumps") and "allow_nan" not in said:
                        loose.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not loose


def test_a_config_with_a_number_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"--optimizer.learning-rate is nan"):
        configuration.to_dict(configuration.replace(Config(), optimizer__learning_rate=float("nan")))


# -------------------------------------------------------------------------------------------------------------- secrets
SECRETS = [
    (["--hub-token", "abc123"], ["--hub-token", HIDDEN]),
    (["--hub-token=abc123", "x"], [f"--hub-token={HIDDEN}", "x"]),
    (["API_KEY=abc", "HF_TOKEN=hf", "password=12"], [f"{n}={HIDDEN}" for n in ("API_KEY", "HF_TOKEN", "password")]),
    (["--secret", "a", "b"], ["--secret", HIDDEN, "b"]),
    (["--password", "--other", "b"], ["--password", "--other", "b"]),
    (["--note", "see hf_AbCdEfGhIj now"], ["--note", f"see {HIDDEN} now"]),
    (["ghp_0123456789abcdef", "sk-proj-0123456789"], [HIDDEN, HIDDEN]),
    (["AKIAIOSFODNN7EXAMPLE"], [HIDDEN]),
    (["--task.path", "https://me:pass@host/x.jsonl"], ["--task.path", f"https://{HIDDEN}@host/x.jsonl"]),
    (["--header", "Authorization: Bearer abc.def"], ["--header", f"Authorization: Bearer {HIDDEN}"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kept"), SECRETS)
def test_secrets_are_left_out_of_a_command(given, kept):
    assert redacted(given) == kept


def test_no_option_of_our_own_is_taken_for_a_secret():
    tables = {"task": TASKS, "curriculum": CURRICULA, "algorithm": ALGORITHMS}
    configs = [configuration.replace(Config(), **{field: one()}) for field, t in tables.items() for one in t.values()]
    names = {path for config in configs for path in configuration.flat(configuration.to_dict(config))}
    assert len(names) > 150
    given = [part for name in sorted(names) for part in (f"--{name.replace('_', '-')}", "value")]
    assert redacted(given) == given
    plain = ["--model.path", "org/task-model", "risk-averse-curriculum-name", "a@b", "--noise.wrong-keys=0.05"]
    assert redacted(plain) == plain


def test_a_run_keeps_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--wandb-api-key", "abc123"])
    with open_run(tmp_path / "run", Config(), "auto", {}):
        pass
    kept = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert kept["command"] == ["train", "--wandb-api-key", HIDDEN]
