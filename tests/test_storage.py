"""What a run leaves on disk: ledger, records, checkpoints, and the directory that refuses what does not belong."""

import collections
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from directories import load_arrays, opened

from lilo_jax import config as configuration
from lilo_jax.config import Config, Launch
from lilo_jax.device.flops import matrix_weights, token_flops
from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.checkpoints import Checkpoints, finished_steps, read_record
from lilo_jax.storage.digest import digests
from lilo_jax.storage.ledger import KINDS, PURPOSES, Ledger, training_total
from lilo_jax.storage.progress import Progress
from lilo_jax.storage.run_directory import RunDirectory
from lilo_jax.tokenizers import load_tokenizer
from lilo_jax.tokenizers.encoding import encode_pairs, encode_prompts
from lilo_jax.training.checks import check
from lilo_jax.training.recorder import Recorder, mean_values
from lilo_jax.training.run import run
from lilo_jax.types import Mean


# ---------------------------------------------------------------------------------------------------------- ledger
def test_ledger_adds_up_and_survives_json():
    ledger = Ledger()
    ledger.add("train", "generated", 5)
    ledger.add("train", "generated", np.int32(7))
    ledger.add("rejected", "generated", 100)
    ledger.add("follow_up", "generated", 1000)
    ledger.add("evaluation", "generated", 10_000)
    ledger.add("audit", "generated", 100_000)
    ledger.add("sft", "trained", 3)
    values = ledger.to_dict()
    entries = [f"{purpose}/{kind}" for purpose in PURPOSES for kind in KINDS]
    assert list(values) == [*entries, "follow_up/saved", *(f"{purpose}/flops" for purpose in PURPOSES)]
    assert len(values) == 41
    assert {name: n for name, n in values.items() if n} == {
        "sft/trained": 3,
        "train/generated": 12,
        "rejected/generated": 100,
        "follow_up/generated": 1000,
        "evaluation/generated": 10_000,
        "audit/generated": 100_000,
    }
    assert ledger.generated() == 1112
    again = Ledger.from_dict(json.loads(json.dumps(values)))
    assert again.to_dict() == values
    again.add("train", "generated", 1)
    assert again.generated() == 1113
    assert ledger.generated() == 1112


@pytest.mark.parametrize(
    ("purpose", "kind"),
    [("training", "generated"), ("train", "sampled"), ("train", "saved"), ("train", "flops"), ("", "")],
)
def test_ledger_knows_its_entries(purpose, kind):
    ledger = Ledger()
    with pytest.raises(ValueError, match="no ledger entry"):
        ledger.add(purpose, kind, 1)
    assert not any(ledger.to_dict().values())


def test_operations_follow_from_tokens_and_shapes():
    """Of a model whose weights are counted by hand, plain and with adapters."""
    layers = {"query": np.zeros((2, 4, 4)), "norm": np.zeros((2, 4))}  # 40 weights
    plain = {"trunk": {"embedding": np.zeros((10, 4)), "layers": layers}, "head": np.zeros((4, 10))}
    tied = {"trunk": plain["trunk"]}
    assert matrix_weights(plain) == matrix_weights(tied) == 40 + 40
    adapters = {"trunk": {"layers": {"query": {"a": np.zeros((2, 4, 1)), "b": np.zeros((2, 1, 4))}}}}  # 16 weights

    def state(policy, base):
        return types.SimpleNamespace(policy=types.SimpleNamespace(params=policy), base=base)

    costs = token_flops(state(plain, None))
    assert costs == {"prefilled": 160, "generated": 160, "scored": 160, "trained": 480}
    assert token_flops(state(adapters, plain)) == {**dict.fromkeys(costs, 192), "trained": 4 * 80 + 6 * 16}
    ledger = Ledger(token_flops=costs)
    for kind, tokens in (("prefilled", 1), ("generated", 20), ("scored", 300), ("trained", 4000)):
        ledger.add("train", kind, tokens)
    ledger.add("follow_up", "saved", 10**6)
    ledger.add("audit", "generated", 7)
    values = ledger.to_dict()
    assert values["train/flops"] == 321 * 160 + 4000 * 480
    assert (values["follow_up/flops"], values["audit/flops"]) == (0, 7 * 160)
    assert training_total(values, "flops") == values["train/flops"]
    assert Ledger.from_dict(values, costs).to_dict() == values
    assert Ledger.from_dict({"train/generated": 20}, costs).to_dict()["train/flops"] == 20 * 160  # an older record


def test_ledger_of_a_run_equals_counts_from_its_rollouts(tiny_run):
    """PPO with a KL term: policy, reference and critic score every trained token; policy and critic train on it."""
    config, directory = tiny_run
    tokenizer = load_tokenizer(directory.tokenizer_path)
    expected: collections.Counter[str] = collections.Counter()
    records, metrics = directory.read("ledger"), directory.read("metrics")
    assert len(records) == 20
    for step, record in enumerate(records):
        rollouts = directory.rollouts()[step]
        groups = {r["group"]: r for r in rollouts}
        assert len(groups) == config.curriculum.pool_ratio * config.rollout.questions
        assert collections.Counter(r["group"] for r in rollouts) == dict.fromkeys(groups, config.rollout.samples)
        assert sum(group["admitted"] for group in groups.values()) == config.rollout.questions
        for group in groups.values():
            length = 1 + len(tokenizer.encode(group["prompt"]))
            expected["train/prefilled" if group["admitted"] else "rejected/prefilled"] += length
        for rollout in rollouts:
            expected["train/generated" if rollout["admitted"] else "rejected/generated"] += rollout["tokens"]
            if rollout["admitted"]:
                whole = 1 + len(tokenizer.encode(rollout["prompt"])) + rollout["tokens"]
                expected["train/scored"] += 3 * whole
                expected["train/trained"] += 2 * config.update.epochs * whole
        of_training = ("train", "screen", "rejected")
        found = {name: n for name, n in record.items() if n and name.split("/")[0] in of_training}
        # Weights of the layers and of the output projection; the four norms' scales come on top.
        weights = 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32 + 28 * 32
        for purpose in ("train", "rejected"):
            tokens = {kind: expected[f"{purpose}/{kind}"] for kind in KINDS}
            forward = tokens["prefilled"] + tokens["generated"] + tokens["scored"]
            assert found.pop(f"{purpose}/flops") == 2 * weights * forward + 6 * weights * tokens["trained"]
        assert found == {name: n for name, n in expected.items() if n}
        verdicts = collections.Counter(r["verdict"] for r in rollouts)
        for verdict in ("correct", "wrong", "no_answer"):
            assert metrics[step][f"rollout/{verdict}_fraction"] == verdicts[verdict] / len(rollouts)
        assert metrics[step]["rollout/length_mean"] == pytest.approx(np.mean([r["tokens"] for r in rollouts]))


def test_rollouts_agree_with_the_task_that_graded_them(tiny_run):
    config, directory = tiny_run
    pool = check(config).splits["train"]
    verdicts = collections.Counter()
    for records in directory.rollouts().values():
        for r in records:
            assert (r["prompt"], r["gold"]) == (pool[r["question"]].prompt, pool[r["question"]].answer)
            assert r["tokens"] <= config.rollout.max_new_tokens
            assert (r["verdict"] == "correct") == (r["response"] == r["gold"] and r["verdict"] != "no_answer")
            verdicts[r["verdict"]] += 1
    assert verdicts["correct"] > 0
    assert verdicts["wrong"] > 0


def test_ledger_of_fine_tuning_and_evaluation(tiny_config, tiny_run, tiny_start):
    """Every evaluation scores the held-out questions once; fine-tuning books real tokens only."""
    config, directory = tiny_run
    task, tokenizer = check(config), load_tokenizer(directory.tokenizer_path)
    pairs = [(q.prompt, q.answer) for name in config.evaluation.splits for q in task.splits[name]]
    each = sum(len(tokenizer.encode(prompt)) + len(tokenizer.encode(answer)) + 2 for prompt, answer in pairs)
    assert [r["evaluation/scored"] for r in directory.read("ledger")] == [each * (1 + step // 5) for step in range(20)]
    assert load_arrays(directory.checkpoints_path)[2]["ledger"]["evaluation/scored"] == 5 * each

    record = load_arrays(RunDirectory(tiny_start).checkpoints_path)[2]["ledger"]
    demonstrations = encode_pairs(tokenizer, task.demonstrations)
    lengths = demonstrations.prompt_lengths + demonstrations.completion_lengths
    epochs, rest = divmod(tiny_config.sft.steps * tiny_config.sft.batch, len(lengths))
    assert epochs * lengths.sum() <= record["sft/trained"] <= (epochs + bool(rest)) * lengths.sum()
    assert record["evaluation/scored"] == each


def test_encoded_prompts_and_pairs_have_begin_and_end_tokens(tiny_run):
    config, directory = tiny_run
    task, tokenizer = check(config), load_tokenizer(directory.tokenizer_path)
    encoded = encode_prompts(tokenizer, task.splits["train"])
    assert encoded.tokens.shape == (64, 17)
    assert set(encoded.tokens[:, 0].tolist()) == set(tokenizer.begin_ids)
    pairs = encode_pairs(tokenizer, task.demonstrations[:5])
    for row, (prompt, response) in enumerate(task.demonstrations[:5]):
        start, length = pairs.prompt_lengths[row], pairs.completion_lengths[row]
        assert tokenizer.decode(pairs.tokens[row, 1:start]) == prompt
        assert tokenizer.decode(pairs.tokens[row, start : start + length]) == response + "</s>"
        assert set(pairs.tokens[row, start + length :].tolist()) <= {tokenizer.pad_id}


# --------------------------------------------------------------------------------------------------- run directory
def test_a_directory_takes_one_config_and_says_what_differs(tiny_config, tmp_path):
    opened(tmp_path / "run", tiny_config, "auto")
    assert configuration.load(tmp_path / "run" / "config.json") == tiny_config
    assert {"python", "packages", "devices", "command"} <= set(
        json.loads((tmp_path / "run" / "environment.json").read_text())
    )
    other = configuration.replace(tiny_config, rollout__questions=8)
    with pytest.raises(UsageError, match=r"another config \(rollout.questions is 4 there and 8 here\)"):
        opened(tmp_path / "run", other, "auto")
    with pytest.raises(UsageError, match="--output-dir"):
        opened(tmp_path / "run", configuration.replace(tiny_config, seed=3), "must")
    assert configuration.load(tmp_path / "run" / "config.json") == tiny_config
    elsewhere = configuration.replace(tiny_config, mesh__data=4, mesh__tensor=2)
    assert opened(tmp_path / "run", elsewhere, "auto").path == tmp_path / "run"


def test_resume_must_and_never(tiny_config, tmp_path):
    with pytest.raises(UsageError, match="no run in"):
        opened(tmp_path / "run", tiny_config, "must")
    assert not (tmp_path / "run").exists()
    opened(tmp_path / "run", tiny_config, "never")
    with pytest.raises(UsageError, match="already holds a run"):
        opened(tmp_path / "run", tiny_config, "never")
    opened(tmp_path / "run", tiny_config, "must")


def test_foreign_directories_and_files_are_refused_and_left_alone(tiny_config, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for resume in ("auto", "never", "must"):
        with pytest.raises(UsageError, match="not empty and holds no run"):
            opened(tmp_path / "thesis", tiny_config, resume)
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]
    with pytest.raises(UsageError, match="is a file"):
        opened(tmp_path / "thesis" / "chapter.txt", tiny_config, "auto")
    (tmp_path / "empty").mkdir()
    opened(tmp_path / "empty", tiny_config, "auto")
    assert (tmp_path / "empty" / "config.json").exists()


def test_run_refuses_a_finished_directory_of_another_config(tiny_run):
    config, directory = tiny_run
    with pytest.raises(UsageError, match="seed is 0 there and 5 here"):
        run(configuration.replace(config, seed=5), Launch(output_dir=str(directory.path)))
    with pytest.raises(UsageError, match="already holds a run"):
        run(config, Launch(output_dir=str(directory.path), resume="never"))
    assert directory.is_done()


def test_a_mistake_leaves_no_directory(tiny_config, tmp_path):
    wrong = configuration.replace(tiny_config, update__minibatches=3)
    with pytest.raises(UsageError, match="does not divide"):
        run(wrong, Launch(output_dir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_outcomes_replace_one_another(tiny_config, tmp_path):
    directory = opened(tmp_path / "run", tiny_config, "auto")
    directory.mark("FAILED", "first")
    assert not directory.is_done()
    directory.mark("DONE", "20 steps")
    assert (directory.is_done(), (directory.path / "FAILED").exists()) == (True, False)
    directory.mark("FAILED", "again")
    assert not directory.is_done()
    opened(tmp_path / "run", tiny_config, "auto")
    assert not (directory.path / "FAILED").exists()


def test_records_are_read_back_and_forgotten_by_step(tiny_config, tmp_path):
    directory = opened(tmp_path / "run", tiny_config, "auto")
    assert directory.read("metrics") == []
    for step in range(6):
        if step % 2 == 0:
            directory.append("eval", {"step": step})
        if step == 4:
            written = json.loads(json.dumps(directory.files.state()))  # as a checkpoint keeps it
        directory.append("metrics", {"step": step, "x": step / 3})
        directory.write_rollouts(step, [{"step": step}])
    with open(directory.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "x"')
    assert directory.read("metrics") == [{"step": step, "x": step / 3} for step in range(6)]
    directory.rewind(written)
    assert [r["step"] for r in directory.read("metrics")] == [0, 1, 2, 3]
    assert [r["step"] for r in directory.read("eval")] == [0, 2, 4]
    assert list(directory.rollouts()) == [0, 1, 2, 3]
    assert (directory.path / "metrics.jsonl").read_text().count("\n") == 4
    with pytest.raises(RunError, match="records of steps and no finished checkpoint"):
        directory.rewind(None)


def test_rollouts_keep_any_text(tiny_config, tmp_path):
    directory = opened(tmp_path / "run", tiny_config, "auto")
    records = [{"response": "a\u2028b\u0085c\x0bd\re\nf 日本語 😀"}, {"response": ""}]
    directory.write_rollouts(3, records)
    assert directory.rollouts() == {3: records}


# ----------------------------------------------------------------------------------------------------- checkpoints
def test_checkpoints_keep_none_and_empty_tuples_and_every_dtype(tmp_path):
    state = {
        "none": None,
        "empty": (),
        "pair": (jnp.arange(3, dtype=jnp.int32), None),
        "deep": {
            "mask": jnp.array([True, False]),
            "half": jnp.array([1.5, -2], jnp.bfloat16),
            "scalar": jnp.float32(0.1),
        },
    }
    record = {"train/generated": 2**40, "text": "ok"}
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert finished_steps(tmp_path / "c") == []
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda x, s=step: x if x.dtype == bool else x + s, state), record)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        assert finished_steps(tmp_path / "c") == [2, 3]
        restored, found = checkpoints.restore(3, state), read_record(tmp_path / "c", 3)
    assert found == record
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert restored["none"] is None
    assert restored["empty"] == ()
    assert restored["pair"][0].tolist() == [3, 4, 5]
    assert restored["deep"]["mask"].tolist() == [True, False]
    assert restored["deep"]["half"].dtype == jnp.bfloat16
    assert restored["deep"]["half"].tolist() == [4.5, 1.0]
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()) == ["2", "3"]

    step, arrays, found = load_arrays(tmp_path / "c")
    assert (step, found) == (3, record)
    assert set(arrays) == {"pair/0", "deep/mask", "deep/half", "deep/scalar"}
    assert arrays["deep/scalar"] == np.float32(0.1) + np.float32(3)


def test_saving_a_step_again_keeps_the_first(tmp_path):
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(4, {"x": jnp.ones(2)}, {"n": 1})
        checkpoints.save(4, {"x": jnp.zeros(2)}, {"n": 2})
    assert load_arrays(tmp_path / "c")[1]["x"].tolist() == [1, 1]


def test_digests_tell_values_shapes_dtypes_and_records_apart(tmp_path):
    def digest(name: str, x, n: int) -> dict[str, str]:
        directory = RunDirectory(tmp_path / name)
        with Checkpoints(directory.checkpoints_path, keep=1) as checkpoints:
            checkpoints.save(0, {"x": x, "y": jnp.ones(2)}, {"ledger": {"n": n}, "files": {name: None}})
        return digests(directory)

    base = digest("a", jnp.zeros(4), 1)
    assert digest("b", jnp.zeros(4), 1) == base
    assert set(base) == {"x", "y", "record"}
    for i, (x, n, changed) in enumerate(
        [
            (jnp.array([0, 0, 0, 1e-45]), 1, "x"),
            (jnp.zeros((2, 2)), 1, "x"),
            (jnp.zeros(4, jnp.int32), 1, "x"),
            (-jnp.zeros(4), 1, "x"),
            (jnp.zeros(4), 2, "record"),
        ]
    ):
        other = digest(f"c{i}", x, n)
        assert {name for name in base if base[name] != other[name]} == {changed}


def test_checkpoint_of_another_model_and_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(UsageError, match="no finished checkpoint"):
        load_arrays(tmp_path / "none")
    (tmp_path / "c").mkdir()
    with pytest.raises(UsageError, match="no finished checkpoint"):
        load_arrays(tmp_path / "c")
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints:
        checkpoints.save(0, {"x": jnp.zeros(4)}, {})
    with Checkpoints(tmp_path / "c", keep=1) as checkpoints, pytest.raises(RunError, match="does not fit this model"):
        checkpoints.restore(0, {"x": jnp.zeros(5)})


# ------------------------------------------------------------------------------------------------------------ mean
def test_means_add_exactly_over_any_partition():
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 8, size=(12, 7)).astype(np.float32) / 4
    weights = (rng.random((12, 7)) < 0.6).astype(np.float32)
    whole = Mean.of(values, weights)
    assert float(whole.weight) == weights.sum()
    assert float(whole.total) == (values * weights).sum()
    for parts in (2, 3, 4):
        pieces = [Mean.of(v, w) for v, w in zip(np.split(values, parts), np.split(weights, parts), strict=True)]
        added = jax.tree.map(lambda *x: sum(x), *pieces)
        assert (float(added.total), float(added.weight)) == (float(whole.total), float(whole.weight))


def test_means_ignore_what_has_no_weight():
    mean = Mean.of(jnp.array([jnp.nan, 2.0, jnp.inf, 4.0]), jnp.array([False, True, False, True]))
    assert (float(mean.total), float(mean.weight)) == (6.0, 2.0)
    empty = Mean.of(jnp.array([jnp.nan]), jnp.array([0.0]))
    assert mean_values({"b": mean, "a": empty}) == {"a": None, "b": 3.0}
    assert list(mean_values({"b": mean, "a": empty})) == ["a", "b"]


# --------------------------------------------------------------------------------------------- steps without a gradient
def written_by(recorder, *skipped, why="not_finite"):
    """Writes a step for each share of optimiser steps that were skipped."""
    for step, share in enumerate(skipped):
        metrics = {f"update/skipped_{why}": Mean(total=np.float32(4 * share), weight=np.float32(4))}
        recorder.write_step(step, {}, metrics, Ledger(), {})
    recorder.flush()


def test_a_run_ends_after_three_steps_in_a_row_without_a_finite_gradient(tmp_path):
    def recorder(name):
        directory = opened(str(tmp_path / name), Config(), "auto")
        return Recorder(directory, Progress("x", total=9, every=1, bar=False)), directory

    fine, directory = recorder("fine")
    written_by(fine, 1, 1, 0.75, 1, 1, 0)
    assert len(directory.read("metrics")) == 6
    stuck, directory = recorder("stuck")
    with pytest.raises(RunError, match="no gradient of the last 3 steps was finite"):
        written_by(stuck, 0, 1, 1, 1, 0)
    assert len(directory.read("metrics")) == 4  # what happened is on record


def test_a_run_ends_after_ten_steps_in_a_row_without_a_row(tmp_path):
    directory = opened(str(tmp_path / "run"), Config(), "auto")
    recorder = Recorder(directory, Progress("x", total=99, every=1, bar=False))
    written_by(recorder, *[1] * 9, 0.5, *[1] * 9, why="empty")
    with pytest.raises(RunError, match="step 0: the last 10 steps had nothing to train on, because the curriculum"):
        written_by(recorder, 1, why="empty")


def test_progress_says_how_many_groups_were_admitted_of_how_many(tmp_path, capsys):
    directory = opened(str(tmp_path / "run"), Config(), "auto")
    recorder = Recorder(directory, Progress("x", total=9, every=1, bar=False))
    described = {
        "curriculum/collected_success_mean": 0.25,
        "curriculum/groups_admitted": 3,
        "curriculum/groups_wanted": 8,
    }
    recorder.write_step(0, described, {}, Ledger(), {})
    recorder.flush()
    assert "step 1/9: success 0.250, 3/8 groups" in capsys.readouterr().err


def test_numbers_that_are_not_finite_end_a_run(tmp_path):
    directory = opened(str(tmp_path / "run"), Config(), "auto")
    recorder = Recorder(directory, Progress("x", total=9, every=1, bar=False))
    recorder.write_step(0, {}, {"loss/policy": Mean(total=np.float32(np.nan), weight=np.float32(1))}, Ledger(), {})
    with pytest.raises(RunError, match="loss/policy is not finite; the last checkpoint is intact"):
        recorder.flush()


def test_responses_that_a_later_evaluation_replaced_do_not_keep_a_run_from_going_on(tmp_path):
    """Evaluated twice since the checkpoint, killed: the responses that the checkpoint knew had been dropped."""
    run = RunDirectory(tmp_path)
    run.write_generations(0, "test", [{"a": 0}], only=True)
    run.append("eval", {"step": 0})
    saved = run.written()
    run.write_generations(10, "test", [{"a": 1}], only=True)
    run.append("eval", {"step": 10})
    again = RunDirectory(tmp_path)
    again.rewind(saved)
    assert again.read("eval") == [{"step": 0}]
    assert again.generations(0, "test") == again.generations(10, "test") == []
    again.write_generations(10, "test", [{"a": 1}], only=True)
    assert again.generations(10, "test") == [{"a": 1}]
    (tmp_path / "eval.jsonl").unlink()
    with pytest.raises(RunError, match=r"eval\.jsonl is missing"):
        RunDirectory(tmp_path).rewind(saved)
