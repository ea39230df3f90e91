"""A model that cannot be used is refused by every verb as by training, in one line that says what is wrong."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from directories import load_arrays
from pretrained_models import write_llama, write_qwen2
from safetensors.numpy import load_file, save_file

from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch
from lilo_jax.device.mesh import MeshConfig, make_mesh
from lilo_jax.errors import RunError, UsageError
from lilo_jax.models import build_model
from lilo_jax.pretrained.inference import _check_finite
from lilo_jax.pretrained.sources import checked_model, decoder_config
from lilo_jax.rl.rloo import Rloo
from lilo_jax.storage.checkpoints import Checkpoints
from lilo_jax.storage.hub import POINTER
from lilo_jax.tasks.chain import Chain
from lilo_jax.training.checks import resolve
from lilo_jax.training.run import run


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"))


def change(path, name, change):
    tensors = load_file(path / "model.safetensors")
    change(tensors[name])
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def nan_weight(path):
    change(path, "model.layers.1.mlp.up_proj.weight", lambda t: t.__setitem__((3, 4), np.nan))


def infinite_norm(path):
    change(path, "model.norm.weight", lambda t: t.__setitem__(0, -np.inf))


def small_embedding(path):
    """What the tokenizer has more, the embedding lacks; all tensors are as config.json says."""
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": 280}))
    tensors = load_file(path / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:280].copy()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def cut(path):
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def empty(path):
    (path / "model.safetensors").write_bytes(b"")


def weights_pointer(path):
    (path / "model.safetensors").write_bytes(POINTER + b"v1\noid sha256:00\nsize 123\n")


def config_pointer(path):
    (path / "config.json").write_bytes(POINTER + b"v1\noid sha256:00\nsize 123\n")


def only_bin(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


def no_weights(path):
    (path / "model.safetensors").unlink()


def lost_tensor(path):
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def other_shape(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 50}))


SPOILT = [
    (nan_weight, "not all finite numbers (trunk/layers/mlp/up of layer 1)"),
    (infinite_norm, "not all finite numbers (trunk/norm/scale)"),
    (small_embedding, "has 290 ids, more than the 280 rows of the embedding"),
    (cut, "is not a whole safetensors file"),
    (empty, "is not a whole safetensors file"),
    (weights_pointer, "run `git lfs pull`"),
    (config_pointer, "run `git lfs pull`"),
    (only_bin, "save_pretrained('NEW')"),
    (no_weights, "holds no weights"),
    (lost_tensor, "1 missing (model.layers.0.mlp.up_proj.weight)"),
    (other_shape, "mlp.gate_proj.weight is [48, 32] and should be [50, 32]"),
]
IDS = [spoil.__name__ for spoil, _ in SPOILT]


@pytest.fixture
def spoilt(request, llama, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(llama, path)
    request.param(path)
    return path


def lilo(monkeypatch, capsys, *args):
    """(exit status, stdout, stderr) of `lilo ARGS`."""
    monkeypatch.setattr(sys, "argv", ["lilo", *map(str, args)])
    try:
        cli.main()
        status = 0
    except SystemExit as exit_:
        status = exit_.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize("verb", ["generate", "logprobs", "eval"])
@pytest.mark.parametrize(("spoilt", "says"), SPOILT, ids=IDS, indirect=["spoilt"])
def test_verbs_refuse(verb, spoilt, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.jsonl").write_text('{"tokens": [5, 6, 7]}\n')
    given = {
        "generate": ["--input", tmp_path / "in.jsonl", "--max-new-tokens", 4],
        "logprobs": ["--input", tmp_path / "in.jsonl"],
        "eval": ["--suite", "gsm8k=sample", "--max-new-tokens", 4, "--max-questions", 1],
    }[verb]
    status, _, err = lilo(monkeypatch, capsys, verb, spoilt, *given, "--output", tmp_path / "out")
    assert status == 2
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").is_file()


@pytest.mark.parametrize(("spoilt", "says"), SPOILT, ids=IDS, indirect=["spoilt"])
def test_training_refuses(spoilt, says, tmp_path):
    config = configuration.replace(
        Config(), num_steps=1, sft__steps=0, model__path=str(spoilt), algorithm=Rloo(), curriculum__pool_ratio=1,
        task=Chain(pool=8, validation=4, test=4, longer=4, demonstrations=9), evaluation__rows=4,
        rollout__questions=2, rollout__samples=2,
    )  # fmt: skip
    with pytest.raises(UsageError) as caught:
        run(config, Launch(output_dir=str(tmp_path / "run")), bar=False)
    assert says in str(caught.value)
    assert not (tmp_path / "run" / "checkpoints" / "0").exists()


@pytest.mark.parametrize(("spoilt", "says"), SPOILT, ids=IDS, indirect=["spoilt"])
def test_doctor_names_it_and_shows_the_rest(spoilt, says, monkeypatch, capsys):
    status, out, err = lilo(monkeypatch, capsys, "doctor", "--model", spoilt)
    if spoilt.joinpath("config.json").read_bytes().startswith(POINTER):  # there is no rest
        assert status == 2
        assert says in err
        return
    assert status == 1
    assert err == f"error: {spoilt} has 1 flaws, listed above\n"
    assert len([line for line in out.splitlines() if line.startswith("error: ")]) == 1
    assert says in out
    for begins in ("jax ", "model ", "tokenizer: TokenizerJson, 290 ids", "prompt: ", "chat template: none"):
        assert any(line.startswith(begins) for line in out.splitlines()), begins


def test_doctor_names_every_flaw(llama, tmp_path, monkeypatch, capsys):
    shutil.copytree(llama, path := tmp_path / "model")
    cut(path)
    (path / "tokenizer.json").write_bytes(POINTER)
    status, out, err = lilo(monkeypatch, capsys, "doctor", "--model", path)
    assert status == 1
    assert err.endswith("has 2 flaws, listed above\n") or "tokenizer.json is a git-lfs pointer" in out
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    _, out, _ = lilo(monkeypatch, capsys, "doctor", "--model", path)
    assert "no tokenizer in" in out
    assert "is not a whole safetensors file" in out


def test_doctor_on_a_template_without_end(tmp_path, monkeypatch, capsys):
    path = write_qwen2(tmp_path)
    (path / "chat_template.jinja").write_text("{{ 'a' * 10 ** 9 }}")
    status, out, _ = lilo(monkeypatch, capsys, "doctor", "--model", path)
    assert status == 1
    assert "error: the chat template needs more than 512 MiB" in out
    assert "weights: all there, all finite" in out


@pytest.mark.slow
def test_a_run_with_a_weight_that_is_none_is_refused(tiny_run, tmp_path, monkeypatch, capsys):
    _, directory = tiny_run
    checked_model(str(directory.path)).read_through()
    path = pathlib.Path(shutil.copytree(directory.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    step, arrays, record = load_arrays(directory.checkpoints_path)
    arrays["policy/params/trunk/norm/scale"] = arrays["policy/params/trunk/norm/scale"] * np.nan
    with Checkpoints(path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(step, arrays, record)
    source = checked_model(str(path))
    model = build_model(decoder_config(source), lambda x, _: x)
    with pytest.raises(UsageError, match=r"not all finite numbers \(trunk/norm/scale\)"):
        source.weights(model, make_mesh(MeshConfig()))
    status, out, _ = lilo(monkeypatch, capsys, "doctor", "--model", path)
    assert status == 1
    assert "not all finite numbers (trunk/norm/scale)" in out


def test_log_probs_that_are_none_are_an_error():
    _check_finite(np.array([-1.0, 0.0, -1e30]))
    for value in (np.nan, -np.inf):
        with pytest.raises(RunError, match="not a finite number"):
            _check_finite(np.array([0.0, value]))


def test_a_whole_model_is_accepted(llama):
    checked_model(str(llama)).read_through()
    resolve(configuration.replace(Config(), model__path=str(llama)))


def test_logprobs_need_no_tokenizer(llama, tmp_path):
    shutil.copytree(llama, bare := tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    checked_model(str(bare))
