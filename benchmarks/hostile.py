"""Hostile input of every kind: from a seed to a case, which a module of the library must take or refuse in one line.

A kind is a function of (random numbers, an empty directory to work in).  It returns what the case is, in words, and the
attempt to be made, which returns None, raises, or returns in words what is wrong although nothing was raised.
"""

import atexit
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import pathlib
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers
from flax import traverse_util

from lilo_jax import config as configuration
from lilo_jax.cli import parser
from lilo_jax.config import TABLES, Config, Launch, ModelConfig, Options, SftConfig, StorageConfig
from lilo_jax.curriculum.rules.uniform import Uniform
from lilo_jax.device.mesh import unconstrained
from lilo_jax.errors import UsageError
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.workers import GradingWorkers
from lilo_jax.models import build_model
from lilo_jax.models.decoder import DecoderConfig
from lilo_jax.models.huggingface import FAMILIES, write_config
from lilo_jax.models.huggingface.safetensors_files import write_tensors
from lilo_jax.models.huggingface.weights import named_tensors, stored_shapes
from lilo_jax.pretrained.diagnosis import diagnose
from lilo_jax.pretrained.export import export
from lilo_jax.questions import Verdict
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.storage.digest import digest_lines
from lilo_jax.tasks import TASKS
from lilo_jax.tasks.chain import Chain
from lilo_jax.tasks.check import look
from lilo_jax.training.checks import check, resolve
from lilo_jax.training.run import run

Random = random.Random


class Case(NamedTuple):
    """One hostile input; see the module."""

    what: str
    attempt: Callable[[], str | None]


Kind = Callable[[Random, pathlib.Path], Case]

TEXTS = (
    *("", " ", "x", "é", "日本", "\U0001f600", "\udcff", "a\nb", "\t", "{", "{question}", "%s", "'", '"', "\\", "#"),
    *("None", "null", "True", "false", "[]", "{}", "()", "-", "--", "---x", "=", "a=b", ",", "a,b", ":", "os:system"),
    *(".", "..", "/", "/nonexistent/x", "~nobody/x", "~", "C:\\x", "a" * 300, "a/" * 2000, "x" * 100_000, "org/model"),
)
NUMBERS = (
    *("0", "1", "-1", "2", "3", "7", "8", "64", "0.5", "-0.0", "1.5", "1e-400", "1e400", "nan", "-nan", "inf", "-inf"),
    *("2147483647", "2147483648", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "9" * 5000),
    *("0x10", "1_000", "１２", "1e3", "1,5", "1 2", "+1", "٣", "1j", "0b1", "00", "1.", ".5", "−1"),
)
PLAUSIBLE = ("0", "1", "2", "4", "8", "0.5", "True", "sample", "greedy", "char", "linear")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, -0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, -(2**63) - 1),
    *(10**400, "", "x", "auto", "nan", "1", "\ud800", "a" * 1000, [], [1], ["x"], [None], [[]], {}, {"name": "x"}),
    *({"a": {"b": 1}}, [{}], {"": ""}, {"name": None}, {"name": ["x"]}, {"name": "os:system"}),
)
SMALL = Chain(pool=32, validation=8, test=8, longer=8, demonstrations=16)


# ------------------------------------------------------------------------------------------------------------- options
def options(rng: Random, directory: pathlib.Path) -> Case:
    """A command line of `experiments.train`, up to where a run would begin, or of `lilo`."""
    arguments = _train_line(rng) if rng.random() < 0.6 else _lilo_line(rng, directory)
    return Case(repr(arguments), functools.partial(_give, arguments, directory))


def _train_line(rng: Random) -> list[str]:
    known = _options()
    arguments = ["train"]
    for field in TABLES:
        if rng.random() < 0.3:
            arguments += [f"--{field}", rng.choice([*TABLES[field], rng.choice(TEXTS)])]
    for _ in range(rng.randint(1, 4)):
        arguments += _option(rng, *rng.choice(known))
    return arguments


@functools.cache
def _options() -> tuple[tuple[str, str], ...]:
    """Every option of a run, whatever is chosen by name, with its default."""
    chosen = [(field, one) for field, table in TABLES.items() for one in table.values()]
    configs = [configuration.replace(Config(), **{field: one()}) for field, one in chosen]
    found = {path: value for one in configs for path, value in configuration.flat(configuration.to_dict(one)).items()}
    launch = {field.name: getattr(Launch(), field.name) for field in dataclasses.fields(Launch)}
    given = {path.replace("_", "-"): str(value) for path, value in (found | launch).items()}
    return tuple(sorted((o, value) for o, value in given.items() if not o.endswith(".name") and o != "print-config"))


def _option(rng: Random, name: str, default: str) -> list[str]:
    if rng.random() < 0.1:
        at = rng.randrange(len(name))
        name = name[:at] + rng.choice(["", "-", ".", "é", "x"]) + name[at + rng.randint(0, 1) :]
    value = rng.choice(rng.choice([TEXTS, NUMBERS, PLAUSIBLE, PLAUSIBLE, *[[default]] * 4]))
    forms = [[f"--{name}", value], [f"--{name}={value}"], [f"--{name}"], [value], [f"--no-{name}"]]
    forms += [[f"--{name}", value, rng.choice(NUMBERS)], [f"--{name}", value] * 2]
    return rng.choices(forms, [8, 4, 1, 1, 1, 1, 1])[0]


VERBS = {
    "doctor": ("model", "prompt"),
    "generate": ("input", "output", "dtype", "max-new-tokens", "temperature", "top-p", "samples", "seed", "chat"),
    "logprobs": ("input", "output", "dtype"),
    "grade": ("input", "output", "grader", "workers", "deadline", "explain"),
    "data": ("question", "answer", "template"),
    "eval": ("suite", "protocol", "output", "generations", "grader", "samples", "temperature", "seed", "max-questions"),
    "export": ("output", "dtype"),
    "digest": (),
    "report": ("output", "against"),
}


def _lilo_line(rng: Random, directory: pathlib.Path) -> list[str]:
    (directory / "in.jsonl").write_text('{"gold": "4", "response": "4", "prompt": "2+2", "tokens": [1, 2]}\n')
    verb = rng.choice(list(VERBS))
    given = ["check", "in.jsonl"] if verb == "data" else ["in.jsonl"] if verb not in ("doctor", "grade") else []
    given = [rng.choice(TEXTS) if rng.random() < 0.5 else word for word in given]
    if {"input", "output"} <= set(VERBS[verb]):
        given += ["--input", "in.jsonl", "--output", "out.jsonl"]
    for _ in range(rng.randint(0, 3)):
        given += _option(rng, rng.choice([*VERBS[verb], "debug"]), "1")
    return ["lilo", rng.choice([verb] * 20 + [rng.choice(TEXTS)]), *given]


def _give(arguments: list[str], directory: pathlib.Path) -> None:
    program, *given = arguments
    with contextlib.chdir(directory):
        if program == "lilo":
            found = vars(parser().parse_args(given))
            del found["debug"]
            found.pop("verb")(**found)
            return
        start = Options(config=configuration.replace(Config(), task=SMALL))
        asked = configuration.parse(start, given, prog="train", description="")
        configuration.to_dict(asked.config)
        check(resolve(asked.config))


# ------------------------------------------------------------------------------------------------------------- configs
def configs(rng: Random, directory: pathlib.Path) -> Case:
    """A `config.json` of a run with other types, values, names and bytes."""
    config = configuration.replace(Config(), task=SMALL)
    for field in ("curriculum", "algorithm"):
        config = configuration.replace(config, **{field: rng.choice(list(TABLES[field].values()))()})
    values = configuration.to_dict(config)
    changes = [_change(rng, values) for _ in range(rng.randint(1, 3))]
    path = directory / "config.json"
    text = json.dumps(values, allow_nan=True).encode()
    if rng.random() < 0.2:
        text = _damaged(rng, text)
        changes.append(f"bytes: {text!r}")
    path.write_bytes(text)
    return Case("; ".join(changes), lambda: check(resolve(configuration.load(path))) and None)


def _change(rng: Random, values: dict[str, Any], path: str = "") -> str:
    """Changes one thing somewhere in nested dictionaries, and says what."""
    name = rng.choice(list(values) or ["x"])
    if values.get(name) and isinstance(values[name], dict) and rng.random() < 0.8:
        return _change(rng, values[name], f"{path}{name}.")
    kind, value = rng.randrange(10), rng.choice(VALUES)
    if kind == 0:
        values.pop(name, None)
        return f"no {path}{name}"
    if kind == 1:
        values[name + "x"] = values.pop(name, None)
        return f"{path}{name}x for {name}"
    if kind == 2:
        name = rng.choice(TEXTS[:20])
    values[name] = value
    return f"{path}{name} is {value!r}"


def _damaged(rng: Random, content: bytes) -> bytes:
    """Other bytes: flipped bits, cut, doubled, with something in between."""
    at = rng.randrange(len(content) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + rng.randbytes(rng.randint(1, 8)) + content[at:]
    if kind == 2:
        return content + content[at:]
    if kind == 3:
        return rng.choice([b"", b"\0" * len(content), b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xfe"])
    flipped = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


# --------------------------------------------------------------------------------------------------------------- lines
ANSWERS: tuple[Any, ...] = (
    *("4", 4, 4.5, "1/2", "-3", "1e5", "\\frac{1}{2}", "So 4. #### 4", "\\boxed{7}", 10**30, "12345678901234567"),
    *(None, True, "", "  ", float("nan"), float("inf"), [], {}, ["4"], "NaN", "NA", "None", "\ud800", "\0"),
    *("x" * 10_000, "5" * 4000, "a" * 300),
    *("\\boxed{", "}{", "####", "9" * 5000, "((((", "\\frac", 1e400, -0.0, "４", "½", "=", "a=", "$", "%"),
)  # fmt: skip


def lines(rng: Random, directory: pathlib.Path) -> Case:
    """A data file with broken rows: a look at it and training must agree on whether it is refused."""
    rows: list[dict[str, Any]] = [{"question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(24)]
    for _ in range(rng.randint(0, 2)):
        row = rng.choice(rows)
        kind = rng.randrange(5)
        if kind == 0 and row:
            del row[rng.choice(list(row))]
        elif kind == 1:
            row["question"] = rng.choice([*VALUES, *TEXTS, rows[0].get("question")])
        elif kind == 2:
            row[rng.choice(TEXTS[:20])] = rng.choice(VALUES)
        else:
            row["answer"] = rng.choice(ANSWERS)
    path = directory / f"questions.{rng.choice(['jsonl', 'jsonl', 'json', 'csv', 'parquet'])}"
    content = _written(path.suffix, rows)
    path.write_bytes(_damaged(rng, content) if rng.random() < 0.4 else content)
    what = f"{path.name} of {rows}" if path.suffix == ".parquet" else repr(path.read_bytes())
    return Case(what, functools.partial(_look_and_build, path))


def _written(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, allow_nan=True) + "\n" for row in rows).encode()
    if suffix == ".json":
        return json.dumps(rows, allow_nan=True).encode()
    texts = [{str(_text(k)): _text(v) for k, v in row.items()} for row in rows]
    columns = list(dict.fromkeys(name for row in texts for name in row))
    if suffix == ".csv":
        table = io.StringIO()
        writer = csv.DictWriter(table, columns)
        writer.writeheader()
        writer.writerows(texts)
        return table.getvalue().encode(errors="replace")
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    columns_of = {name: [row.get(name) for row in texts] for name in columns}
    pyarrow.parquet.write_table(pyarrow.table(columns_of), sink)
    return sink.getvalue()


def _text(value: Any) -> str | None:
    return None if value is None else str(value).encode(errors="replace").decode()


def _look_and_build(path: pathlib.Path) -> str | None:
    refusals: list[UsageError | None] = [None, None]
    spec = TASKS["dataset"](path=str(path))
    try:
        findings = [finding for finding in look(spec).findings if not finding.kind.startswith("golds")]
        refusals[0] = UsageError(str(findings[0])) if findings else None
    except UsageError as error:
        refusals[0] = error
    try:
        spec.build(0)
    except UsageError as error:
        refusals[1] = error
    if (refusals[0] is None) != (refusals[1] is None):
        return f"data check says {refusals[0] or 'nothing'!s}, training says {refusals[1] or 'nothing'!s}"
    if refusals[1] is not None:
        raise refusals[1]
    return None


# -------------------------------------------------------------------------------------------------------------- models
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TEMPLATES = (
    *("", "{{", "{% for %}", "{{ messages }}", "{{ 'a' * 10 ** 9 }}", "{{ raise_exception('no') }}", "{{ bos_token }}"),
    *(
        "{{ messages[9].content }}",
        "{{ ''.__class__ }}",
        "{{ 1 // 0 }}",
        "\0",
        "{{ '\\ud800' }}",
        "{{ x.y }}",
        5,
        ["a"],
    ),
    [{"name": "default", "template": CHAT}],
    [{"name": ["x"], "template": 5}],
)


@functools.cache
def _model() -> pathlib.Path:
    """A tiny model of this process, in the layout of Hugging Face."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="fuzz_model_"))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["What is 6 times 7?"] * 9, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHAT}
    config = DecoderConfig(family="qwen2", vocab_size=288, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8,
                           mlp_dim=16, context_length=64, attention_bias="qkv")  # fmt: skip
    shapes = jax.eval_shape(build_model(config, unconstrained).init, jax.random.key(0))
    numbers = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: numbers.standard_normal(leaf.shape).astype(np.float32), shapes)
    stream = ((name, None, weight) for name, weight in traverse_util.flatten_dict(params).items())
    write_tensors(path, stored_shapes(FAMILIES["qwen2"], shapes), named_tensors(stream, FAMILIES["qwen2"], shapes))
    for name, values in {
        "tokenizer_config.json": settings,
        "config.json": write_config(config) | {"eos_token_id": 1},
        "generation_config.json": {"eos_token_id": [1], "pad_token_id": 0},
    }.items():
        (path / name).write_text(json.dumps(values, allow_nan=False))
    return path


def models(rng: Random, directory: pathlib.Path) -> Case:
    """A model directory with other fields, bytes and templates."""
    path = directory / "model"
    shutil.copytree(_model(), path)
    done = [_spoil_model(rng, path) for _ in range(rng.randint(1, 2))]
    return Case("; ".join(done), functools.partial(_diagnose, path))


def _spoil_model(rng: Random, path: pathlib.Path) -> str:
    kind, name = rng.randrange(6), rng.choice(sorted(file.name for file in path.iterdir()) or ["config.json"])
    file = path / name
    if kind == 0 and file.exists():
        file.unlink()
        return f"no {name}"
    if kind == 1:
        template = rng.choice(TEMPLATES)
        if rng.random() < 0.5 and isinstance(template, str):
            (path / "chat_template.jinja").write_text(template)
        else:
            (path / "tokenizer_config.json").write_text(
                json.dumps({"eos_token": "<|im_end|>", "chat_template": template}, allow_nan=False)
            )
        return f"template {template!r}"
    if kind == 2 or not file.exists() or file.suffix != ".json":
        content = file.read_bytes() if file.exists() else b"{}"
        head = content[: 9 if rng.random() < 0.3 else 2000]  # where the headers are
        content = _damaged(rng, head) + content[len(head) :] if rng.random() < 0.6 else _damaged(rng, content)
        file.write_bytes(content)
        return f"{name} begins with {content[:80]!r}"
    try:
        values = json.loads(file.read_bytes())
        done = _change(rng, values)
        file.write_text(json.dumps(values, allow_nan=True))
        return f"{name}: {done}"
    except (ValueError, AttributeError, TypeError):  # spoilt before
        file.write_text(json.dumps(value := rng.choice(VALUES), allow_nan=True))
        return f"{name} is {value!r}"


def _diagnose(path: pathlib.Path) -> None:
    found = diagnose(str(path), "What is 6 times 7?")
    if found.errors:
        raise UsageError(found.errors[0])


# --------------------------------------------------------------------------------------------------------- checkpoints
RUN = "FUZZ_RUN"
"""Names the finished run that is spoilt, made once for all processes."""


def make_run(path: pathlib.Path) -> None:
    """A run that stopped after two of four steps."""
    config = configuration.replace(
        Config(),
        num_steps=4,
        task=SMALL,
        curriculum=Uniform(),
        algorithm=Rloo(),
        model=ModelConfig(num_layers=1, embed_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16),
        sft=SftConfig(steps=0),
        rollout=RolloutConfig(questions=2, samples=2),
        storage=StorageConfig(save_every=2, rollouts_every=1),
        evaluation__rows=8,
    )
    run(config, Launch(output_dir=str(path), stop_at=2), bar=False)


def checkpoints(rng: Random, directory: pathlib.Path) -> Case:
    """A file of a run's directory with other bytes, or none; then a verb, which must refuse it or read the same."""
    source, path = pathlib.Path(os.environ[RUN]), directory / "run"
    shutil.copytree(source, path)
    file = rng.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    if rng.random() < 0.25:
        file.unlink()
        done = "deleted"
    else:
        content = _damaged(rng, file.read_bytes())
        file.write_bytes(content)
        done = f"now {len(content)} bytes"
    verb = rng.choice([_digest, _export, _resume])
    return Case(f"{verb.__name__[1:]} after {file.relative_to(path)} is {done}", lambda: verb(source, path))


def _digest(source: pathlib.Path, path: pathlib.Path) -> str | None:
    return _differs(digest_lines(source), digest_lines(path))


def _export(source: pathlib.Path, path: pathlib.Path) -> str | None:
    outputs = path.with_name("whole"), path.with_name("spoilt")
    export(str(path), outputs[1])
    export(str(source), outputs[0])
    whole, spoilt = ((output / "model.safetensors").read_bytes() for output in outputs)
    return None if whole == spoilt else "weights differ, and nothing was said"


def _resume(source: pathlib.Path, path: pathlib.Path) -> str | None:
    config = configuration.load(source / "config.json")
    run(config, Launch(output_dir=str(path), stop_at=2, resume="must"), bar=False)
    return _differs(digest_lines(source), digest_lines(path))


def _differs(whole: Sequence[str], spoilt: Sequence[str]) -> str | None:
    parts = [line.split("  ")[1] for line in sorted(set(whole) ^ set(spoilt))]
    return f"other content was accepted: {', '.join(dict.fromkeys(parts))[:200]}" if parts else None


_GRADED: concurrent.futures.Future[Judgement] = concurrent.futures.Future()
_GRADED.set_result(Judgement(Verdict.CORRECT))


def warm_up() -> None:
    """Makes what all cases of a process share; the model directory goes with the process.

    Nothing is graded: a worker may start no processes, and what algebra cannot read is only a warning.
    """
    GradingWorkers.submit = lambda *_: _GRADED  # type: ignore[method-assign]
    atexit.register(shutil.rmtree, _model(), ignore_errors=True)
    _options()


KINDS: dict[str, Kind] = {
    "options": options, "configs": configs, "lines": lines, "models": models, "checkpoints": checkpoints,
}  # fmt: skip
