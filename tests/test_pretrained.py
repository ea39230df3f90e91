"""Starting from published models and handing them on: training, export, the command line, meshes, bad input."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from directories import load_arrays
from pretrained_models import write_llama, write_qwen2
from virtual_devices import printed_by

from lilo_jax import cli
from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch, ModelConfig, SftConfig
from lilo_jax.device.mesh import MeshConfig, make_mesh, unconstrained
from lilo_jax.errors import UsageError
from lilo_jax.evaluation.protocols import EvaluationConfig
from lilo_jax.models import build_model
from lilo_jax.models.lora import LoraConfig
from lilo_jax.pretrained.sources import decoder_config, open_model
from lilo_jax.rl.ppo import Ppo
from lilo_jax.rl.rloo import Rloo
from lilo_jax.sampling.settings import RolloutConfig
from lilo_jax.tasks.chain import Chain
from lilo_jax.tokenizers.sentence_piece import TokenizerConfig
from lilo_jax.training.assembly import assemble
from lilo_jax.training.checks import check, resolve
from lilo_jax.training.run import run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return write_qwen2(tmp_path_factory.mktemp("models") / "qwen2")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("models") / "llama")


def small_config(path, **changes) -> Config:
    config = Config(
        num_steps=2,
        task=Chain(pool=32, validation=8, test=8, longer=4, demonstrations=64),
        model=ModelConfig(path=str(path)),
        sft=SftConfig(steps=2, batch=8),
        rollout=RolloutConfig(questions=2, samples=4),
        algorithm=Ppo(whitening="none"),
        evaluation=EvaluationConfig(splits=("test",), rows=16, samples=2),
    )
    return configuration.replace(config, **changes)


def lilo(monkeypatch, capsys, *args):
    """Printed lines of `lilo ARGS`."""
    monkeypatch.setattr(sys, "argv", ["lilo", *map(str, args)])
    cli.main()
    return capsys.readouterr().out.splitlines()


def reference_logits(path, tokens) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens))).logits.numpy()


def our_weights(path):
    source = open_model(str(path))
    model = build_model(decoder_config(source), unconstrained)
    return model, source.weights(model, make_mesh(MeshConfig()))


# ------------------------------------------------------------------------------------------------------------ training
@pytest.fixture(scope="module", params=["qwen2", "llama"])
def trained(request, tmp_path_factory):
    """(source directory, directory of a run that started from it)."""
    source = request.getfixturevalue(request.param)
    result = run(small_config(source), Launch(output_dir=str(tmp_path_factory.mktemp("runs") / request.param)))
    assert result.done
    return source, result.directory


@pytest.mark.slow
def test_a_run_starts_from_the_models_weights_shape_and_tokenizer(trained):
    source, directory = trained
    stored = configuration.load(directory.config_path)
    expected = json.loads((source / "config.json").read_text())
    assert stored.model.embed_dim == expected["hidden_size"]
    assert stored.model.vocab_size == expected["vocab_size"]
    _, params = our_weights(source)
    _, arrays, _ = load_arrays(directory.path / "sft" / "checkpoints", "policy/params/")
    start = np.asarray(params["trunk"]["layers"]["mlp"]["gate"])
    moved = np.abs(arrays["policy/params/trunk/layers/mlp/gate"] - start).max()
    assert 0 < moved < 0.05  # two fine-tuning steps away
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(source)
    for record in next(iter(directory.rollouts().values())):
        assert tokenizer(record["prompt"])["input_ids"]
    assert {r["method"] for r in directory.read("eval")} == {"sampled"}  # a text has several token sequences


@pytest.mark.slow
def test_without_fine_tuning_the_run_starts_from_the_model_itself(qwen2, tmp_path):
    config = small_config(qwen2, sft__steps=0, num_steps=1)
    directory = run(config, Launch(output_dir=str(tmp_path / "run"))).directory
    assert not (directory.path / "sft").exists()
    reached = open_model(str(directory.path))
    model, params = our_weights(qwen2)
    after = reached.weights(model, make_mesh(MeshConfig()))
    moved = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, after)))
    assert 0 < moved < 1e-3


def test_prompts_may_be_put_into_the_chat_template(qwen2):
    config = resolve(small_config(qwen2, tokenizer=TokenizerConfig(chat=True)))
    assembly = assemble(config, check(config), tokenizer=open_model(str(qwen2)).tokenizer())
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(qwen2)
    for question, row, length in zip(assembly.pool.questions, assembly.pool.tokens, assembly.pool.lengths, strict=True):
        messages = [{"role": "user", "content": question.prompt}]
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert row[:length].tolist() == expected


def test_ids_beyond_the_tokenizer_are_never_sampled(qwen2, tmp_path, monkeypatch, capsys):
    """20 rows of the embedding have no token; a hot draw would find them at once."""
    known = len(transformers.PreTrainedTokenizerFast.from_pretrained(qwen2))
    assert known < 320
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "What is 1 plus 2?"}) + "\n")
    lilo(monkeypatch, capsys, "generate", qwen2, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl",
         "--samples", 64, "--max-new-tokens", 32, "--temperature", 50)  # fmt: skip
    (record,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    tokens = [t for row in record["tokens"] for t in row]
    assert len(tokens) > 1000
    assert max(tokens) < known
    assert len(set(tokens)) > 200


# -------------------------------------------------------------------------------------------------------------- export
@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    source, directory = trained
    output = tmp_path_factory.mktemp("exports") / "model"
    subprocess.run(
        [sys.executable, "-m", "lilo_jax.cli", "export", str(directory.path), "--output", str(output)], check=True
    )
    return source, directory, output


@pytest.mark.slow
def test_transformers_loads_what_was_exported_and_agrees(exported):
    _, directory, output = exported
    tokens = np.random.default_rng(0).integers(280, size=(3, 20)).astype(np.int32)
    model, params = our_weights(directory.path)
    ours = model.logits(params, model.hidden(params, tokens))
    np.testing.assert_allclose(ours, reference_logits(output, tokens), atol=1e-4)


@pytest.mark.slow
def test_import_of_an_export_is_byte_equal(exported):
    _, directory, output = exported
    before, after = our_weights(directory.path)[1], our_weights(output)[1]
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.slow
def test_export_keeps_config_and_tokenizer(exported):
    source, _, output = exported
    old, new = transformers.AutoConfig.from_pretrained(source), transformers.AutoConfig.from_pretrained(output)
    same = "hidden_size num_key_value_heads rope_parameters tie_word_embeddings vocab_size architectures"
    for name in same.split():
        assert getattr(new, name) == getattr(old, name), name
    tokenizers = [transformers.PreTrainedTokenizerFast.from_pretrained(path) for path in (source, output)]
    text = "What is 12 plus 30?  3abc=  é\n"
    assert len({tuple(tokenizer(text)["input_ids"]) for tokenizer in tokenizers}) == 1
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    ends = [transformers.GenerationConfig.from_pretrained(path).eos_token_id for path in (source, output)]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_the_exported_critic_is_a_token_classifier_with_the_same_values(exported):
    _, directory, output = exported
    tokens = np.random.default_rng(0).integers(280, size=(3, 20)).astype(np.int32)
    source = open_model(str(directory.path))
    model = build_model(decoder_config(source), unconstrained)
    critic = source.critic_weights(model, make_mesh(MeshConfig()))
    ours = model.values(critic, model.hidden(critic, tokens))
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(output / "critic", dtype=torch.float32)
    with torch.no_grad():
        values = theirs.eval()(torch.tensor(tokens)).logits[..., 0].numpy()
    np.testing.assert_allclose(ours, values, atol=1e-4)
    again = open_model(str(output)).critic_weights(model, make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, critic, again)


@pytest.mark.slow
def test_a_run_can_start_its_critic_from_an_exported_one(exported, tmp_path):
    _, _, output = exported
    config = small_config(output, sft__steps=0, model__critic=str(output), optimizer__learning_rate=1e-30, num_steps=1)
    directory = run(config, Launch(output_dir=str(tmp_path / "run"))).directory
    model, _ = our_weights(output)
    found = open_model(str(directory.path)).critic_weights(model, make_mesh(MeshConfig()))
    expected = open_model(str(output)).critic_weights(model, make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_an_export_in_bfloat16_rounds_and_nothing_else(exported, tmp_path, monkeypatch, capsys):
    _, directory, _ = exported
    printed = lilo(monkeypatch, capsys, "export", directory.path, "--output", tmp_path / "m", "--dtype", "bfloat16")
    assert printed == [str(tmp_path / "m"), str(tmp_path / "m" / "critic")]
    before, after = our_weights(directory.path)[1], our_weights(tmp_path / "m")[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a).astype(jax.numpy.bfloat16).astype(np.float32), b),
        before, after,
    )  # fmt: skip
    assert transformers.AutoConfig.from_pretrained(tmp_path / "m").dtype == torch.bfloat16


@pytest.mark.slow
def test_a_merged_export_of_adapters_loads_with_the_same_logits(llama, tmp_path, monkeypatch, capsys):
    lora = LoraConfig(rank=2, targets=("query", "value", "down"))
    config = small_config(llama, lora=lora, sft__steps=0, optimizer__learning_rate=0.05)
    result = run(config, Launch(output_dir=str(tmp_path / "run")))
    lilo(monkeypatch, capsys, "export", result.directory.path, "--output", tmp_path / "merged")
    tokens = np.random.default_rng(0).integers(280, size=(3, 20)).astype(np.int32)
    model, base = our_weights(llama)
    params = jax.tree.map(np.asarray, base)
    from lilo_jax.models.lora import combine

    apart = combine(params, result.state.policy.params, lora.scale)
    ours = model.logits(apart, model.hidden(apart, tokens))
    np.testing.assert_allclose(ours, reference_logits(tmp_path / "merged", tokens), atol=1e-4)
    assert np.abs(ours - reference_logits(llama, tokens)).max() > 1e-2
    critic = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "merged" / "critic")
    assert critic.num_labels == 1


@pytest.mark.slow
def test_export_leaves_what_is_there(trained, tmp_path):
    _, directory = trained
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    done = subprocess.run(
        [sys.executable, "-m", "lilo_jax.cli", "export", str(directory.path), "--output", str(tmp_path / "taken")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'taken'} is not empty: pass another --output\n"
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["mine.txt"]


# -------------------------------------------------------------------------------------------------------- command line
def test_logprobs_equal_transformers_and_keep_the_order(llama, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    rows = [rng.integers(290, size=n).tolist() for n in (12, 1, 40, 2, 7)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"tokens": row}) + "\n" for row in rows))
    shutil.copytree(llama, bare := tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    lilo(monkeypatch, capsys, "logprobs", bare, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    found = [json.loads(line)["logprobs"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [len(row) for row in found] == [11, 0, 39, 1, 6]
    for row, ours in zip(rows, found, strict=True):
        logprobs = jax.nn.log_softmax(reference_logits(llama, [row])[0])
        expected = [logprobs[i, token] for i, token in enumerate(row[1:])]
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_greedy_generation_equals_transformers(qwen2, tmp_path, monkeypatch, capsys):
    prompts = ["What is 3 plus 4?", "7abc......=", "The answer"]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    lilo(monkeypatch, capsys, "generate", qwen2, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl",
         "--temperature", 0, "--max-new-tokens", 24)  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(qwen2)
    model = transformers.AutoModelForCausalLM.from_pretrained(qwen2, dtype=torch.float32)
    for prompt, line in zip(prompts, (tmp_path / "out.jsonl").read_text().splitlines(), strict=True):
        record, ids = json.loads(line), tokenizer(prompt, return_tensors="pt")
        unused = list(range(len(tokenizer), 320))
        whole = model.generate(**ids, do_sample=False, max_new_tokens=24, suppress_tokens=unused)
        expected = whole[0, ids["input_ids"].shape[1] :].tolist()
        assert record["tokens"] == [expected]
        assert record["texts"] == [tokenizer.decode(expected[:-1] if record["ended"][0] else expected)]
        assert len(record["logprobs"][0]) == len(expected)


def test_generated_logprobs_equal_scored_ones_and_samples_differ(llama, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.jsonl").write_text(json.dumps({"tokens": [0, 5, 9]}) + "\n" + json.dumps({"prompt": "12"}) + "\n")
    arguments = ["generate", llama, "--input", tmp_path / "in.jsonl", "--samples", 3, "--max-new-tokens", 12]
    lilo(monkeypatch, capsys, *arguments, "--output", tmp_path / "a.jsonl")
    lilo(monkeypatch, capsys, *arguments, "--output", tmp_path / "b.jsonl")
    lilo(monkeypatch, capsys, *arguments, "--output", tmp_path / "c.jsonl", "--seed", 1)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert (tmp_path / "a.jsonl").read_text() != (tmp_path / "c.jsonl").read_text()
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert len(first["tokens"]) == 3
    assert len({tuple(row) for row in first["tokens"]}) == 3
    for row, logprobs in zip(first["tokens"], first["logprobs"], strict=True):
        expected = jax.nn.log_softmax(reference_logits(llama, [[0, 5, 9, *row]])[0])
        np.testing.assert_allclose(logprobs, [expected[2 + i, t] for i, t in enumerate(row)], atol=1e-4)


def test_doctor_shows_the_rendered_prompt_its_ids_and_the_ends(qwen2, monkeypatch, capsys):
    lines = lilo(monkeypatch, capsys, "doctor", "--model", qwen2, "--prompt", "2+2?")
    text = "\n".join(lines)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(qwen2)
    messages = [{"role": "user", "content": "2+2?"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert f"chat prompt: {rendered!r}" in lines
    assert f"chat prompt ids: {' '.join(map(str, tokenizer(rendered)['input_ids']))}" in lines
    assert "ends with any of: <|im_end|> (2), <|endoftext|> (0)" in lines
    assert "begins with: nothing" in lines
    assert "padding: " in text
    assert "never sampled" in text


# --------------------------------------------------------------------------------------------------------------- meshes
SHARDED = """
    import json, pathlib, sys
    import jax, numpy as np
    from lilo_jax.device.mesh import MeshConfig, constrainer, make_mesh
    from lilo_jax.models import build_model
    from lilo_jax.pretrained.sources import decoder_config, open_model

    assert jax.device_count() == 8
    source = open_model(sys.argv[1])
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    model = build_model(decoder_config(source), constrainer(mesh))
    params = source.weights(model, mesh)
    tokens = np.load(sys.argv[2])
    logits = jax.jit(lambda p, t: model.logits(p, model.hidden(p, t)))(params, tokens)
    np.save(sys.argv[3], logits)
    gate = params["trunk"]["layers"]["mlp"]["gate"]
    shards = {str(s.data.shape) for s in gate.addressable_shards}
    print(json.dumps({"whole": gate.shape, "shards": sorted(shards), "query": str(
        params["trunk"]["layers"]["attention"]["query"].addressable_shards[0].data.shape)}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_import_onto_eight_devices_gives_each_its_shard_and_the_same_logits(name, request, tmp_path):
    source = request.getfixturevalue(name)
    tokens = np.random.default_rng(0).integers(280, size=(8, 16)).astype(np.int32)
    np.save(tmp_path / "tokens.npy", tokens)
    printed = printed_by(SHARDED, source, tmp_path / "tokens.npy", tmp_path / "logits.npy", devices=8)
    found = json.loads(printed.splitlines()[-1])
    assert found == {"whole": [2, 32, 48], "shards": ["(2, 8, 24)"], "query": "(2, 8, 2, 8)"}
    model, params = our_weights(source)
    expected = model.logits(params, model.hidden(params, tokens))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ bad input
def change_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def truncate(path):
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def wrong_shape(path):
    change_config(path, intermediate_size=50)


def missing_shard(path):
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "model.safetensors").unlink()


def unsupported(path):
    change_config(path, mlp_bias=True)


def small_embedding(path):
    change_config(path, vocab_size=100)


def raising_template(path):
    (path / "chat_template.jinja").write_text("{{ raise_exception('no users, please') }}")


MISTAKES = [
    (truncate, "model.safetensors"),
    (wrong_shape, "gate_proj"),
    (missing_shard, "model-00001-of-00002.safetensors"),
    (unsupported, "mlp_bias"),
    (small_embedding, "more than the 100 rows of the embedding"),
    (raising_template, "no users, please"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "says"), MISTAKES, ids=[spoil.__name__ for spoil, _ in MISTAKES])
def test_a_spoilt_model_is_refused_in_one_line(spoil, says, qwen2, tmp_path):
    """From the command line of an experiment, with the chat template in use."""
    shutil.copytree(qwen2, path := tmp_path / "model")
    spoil(path)
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--model.path", str(path), "--tokenizer.chat", "--sft.steps", "0",
         "--task.pool", "32", "--output-dir", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=pathlib.Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [("some-org/some-model", "some-org/some-model"), ("/no/such/directory", "/no/such/directory"), ("", "")],
)
def test_a_model_that_is_not_there(path, says, tmp_path):
    if not path:
        with pytest.raises(UsageError, match="has no config"):
            open_model(str(tmp_path))
        return
    with pytest.raises(UsageError, match=says) as caught:
        resolve(small_config(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"tokens": [1, 2', "line 2: not valid JSON"),
        ('{"tokens": []}', "line 2: no tokens"),
        ('{"tokens": [1, 290]}', "line 2: token ids must be from 0 to 289"),
        ('{"tokens": [1, "2"]}', "line 2: expected"),
        ('{"text": "x"}', "line 2: expected"),
        (json.dumps({"tokens": [1] * 300}), "line 2: 300 tokens, but the model has room for 256"),
    ],
)
def test_a_bad_line_is_named_and_the_old_output_stays(line, says, llama, tmp_path, monkeypatch, capsys):
    (tmp_path / "in.jsonl").write_text('{"tokens": [1, 2]}\n' + line + "\n")
    (tmp_path / "out.jsonl").write_text("older\n")
    arguments = ["logprobs", llama, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
    monkeypatch.setattr(sys, "argv", ["lilo", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_text() == "older\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_where_output_cannot_go_is_said_before_a_model_is_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "in.jsonl").write_text('{"tokens": [1, 2]}\n')
    for output, says in ((tmp_path / "no" / "out.jsonl", "there is no directory"), (tmp_path, "is a directory")):
        for verb in ("logprobs", "generate"):
            arguments = [verb, "/no/such/model", "--input", tmp_path / "in.jsonl", "--output", output]
            monkeypatch.setattr(sys, "argv", ["lilo", *map(str, arguments)])
            with pytest.raises(SystemExit) as caught:
                cli.main()
            assert caught.value.code == 2
            assert says in capsys.readouterr().err


def test_a_config_may_not_contradict_the_model(qwen2):
    with pytest.raises(UsageError, match=r"--model.num-layers is 7, but .* fixes it as 2: leave it out"):
        resolve(small_config(qwen2, model__num_layers=7))


def test_a_relative_path_is_kept_whole(qwen2, monkeypatch):
    monkeypatch.chdir(qwen2.parent)
    assert resolve(small_config("qwen2")).model.path == str(qwen2.resolve())


def test_a_prompt_longer_than_the_context_is_refused(qwen2, tmp_path):
    config = small_config(qwen2, rollout__max_new_tokens=250, sft__steps=0)
    with pytest.raises(UsageError, match=r"more than the 256 of the model"):
        run(config, Launch(output_dir=str(tmp_path / "run")))


def test_a_critic_of_another_shape_is_refused(qwen2, llama):
    with pytest.raises(UsageError, match="of another shape than the policy"):
        resolve(small_config(qwen2, model__critic=str(llama)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lora": LoraConfig(rank=-1)}, "--lora.rank must be at least 0"),
        ({"lora": LoraConfig(rank=2, targets=("quary",))}, "did you mean 'query'"),
        ({"lora": LoraConfig(rank=2), "model__path": "", "sft__steps": 0}, "--lora.rank needs a base"),
        ({"lora": LoraConfig(rank=2), "num_steps": 0}, "--lora.rank is for reinforcement learning"),
        ({"lora": LoraConfig(rank=2), "model__critic": "x"}, "--model.critic cannot start a critic of adapters"),
        ({"algorithm": Rloo(), "model__critic": "x"}, "the algorithm trains no critic"),
    ],
)
def test_adapters_that_cannot_be(changes, says, qwen2):
    with pytest.raises(UsageError, match=says):
        check(small_config(qwen2, **changes))
