"""The sweep on a tiny model: what it writes, that it runs only what is new, and what it refuses."""

import json
import re
import shlex
import sys

import pytest

from experiments import sweep
from lilo_jax.config import exit_with_message

TINY = shlex.split("""--algorithms rloo --seeds 2 --num-steps 2 --jobs 1 --task.pool 32 --task.validation 8
    --task.test 8
    --task.longer 4 --task.demonstrations 64 --model.num-layers 1 --model.embed-dim 16 --model.num-heads 2
    --model.num-kv-heads 1 --model.head-dim 8 --model.mlp-dim 16 --sft.steps 2 --sft.batch 8 --rollout.questions 2
    --rollout.samples 2 --rollout.max-new-tokens 4 --evaluation.every 1 --evaluation.rows 8""")


@pytest.fixture
def sweep_with(monkeypatch, tmp_path):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["sweep", *args, "--output-dir", str(tmp_path / "out")])
        sweep.main()
        return tmp_path / "out"

    return call


def written(root):
    """When each record of a run was written last."""
    return {path.relative_to(root): path.stat().st_mtime_ns for path in root.glob("seed_*/*/*.jsonl")}


def rows(root):
    lines = (root / "table.md").read_text().splitlines()
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def test_a_sweep_writes_its_table_and_goes_on_with_what_is_new(sweep_with):
    root = sweep_with("--arms", "uniform,lilo", *TINY)
    first = written(root)
    assert {path.parts[:2] for path in first} == {
        (f"seed_{seed}", run) for seed in (601, 602) for run in ("sft", "rloo_uniform", "rloo_lilo")
    }
    head, rule, *body = rows(root)
    assert {len(line) for line in (head, rule, *body)} == {9}
    assert [line[:3] for line in body] == [("rloo", "`uniform`", "2"), ("rloo", "`lilo`", "2")]
    summary = json.loads((root / "summary.json").read_text())["rloo"]
    assert set(summary["arms"]) == {"uniform", "lilo"}
    for arm, cells in zip(("uniform", "lilo"), body, strict=True):
        assert cells[3].startswith(f"{summary['final'][arm]['mean']:.3f} [")
        tokens = [run["generated_tokens"][-1] for run in summary["arms"][arm]]
        assert cells[6] == f"{sum(tokens) / 2 / 1e3:.0f}k"
    root = sweep_with("--arms", "uniform,lilo,kimi", *TINY)
    again = written(root)
    assert {path: again[path] for path in first} == first
    assert {path.parts[1] for path in set(again) - set(first)} == {"rloo_kimi"}
    assert [line[1] for line in rows(root)[2:]] == ["`uniform`", "`lilo`", "`kimi`"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--arms", "uniform,unifrom_wide"], r"unknown arm 'unifrom_wide': did you mean 'uniform_wide'"),
        (["--arms", "uniform,fronteir"], "did you mean 'frontier'"),
        (["--arms", "uniform,mine:No"], "package.module:ClassName"),
        (["--algorithms", "rlo"], "did you mean 'rloo'"),
        (["--arms", "uniform,uniform"], "different names"),
        (["--arms", "uniform,"], "different names"),
        (["--split", "tset"], "did you mean 'test'"),
        (["--seeds", "0"], "--seeds and --num-steps must be at least 1"),
        (["--arms", "uniform,sec"], "chooses between categories"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_written(args, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["sweep", *args, "--output-dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as caught:
        exit_with_message(sweep.main)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert re.search(says, err)
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
