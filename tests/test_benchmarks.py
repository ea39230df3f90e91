"""The benchmarks: counts against hand-worked cases, arithmetic of the tables, and tiny runs without any peer."""

import dataclasses
import functools
import json
import os
import re
import shlex
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import accelerator, checkpoint, flops, growth, ours, packing, selection, table, workload
from benchmarks.arena import Arm, Outcome, compete
from benchmarks.suite import EXPERIMENTS, Setting
from benchmarks.table import Limits
from benchmarks.workload import SHAPES, TINY, Job, Shape, Sizes
from lilo_jax.storage.json_lines import to_json
from lilo_jax.types import Proposal

SMALL = Shape(num_layers=1, embed_dim=2, num_heads=1, num_kv_heads=1, head_dim=2, mlp_dim=3, vocab_size=5)
TORCH = """raise ModuleNotFoundError("No module named 'torch'", name="torch")"""


@pytest.fixture
def no_torch(tmp_path, monkeypatch):
    """The workers find no torch, whatever this interpreter has."""
    folder = tmp_path / "absent"
    folder.mkdir()
    (folder / "torch.py").write_text(TORCH)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def job(work, variant="", **sizes):
    return Job(work, variant, SHAPES["tiny"], dataclasses.replace(TINY, **sizes))


# -------------------------------------------------------------------------------------------------------------- counts
def test_weights_in_matrix_products_by_hand():
    assert flops.layer_weights(SMALL) == 2 * 2 + 2 * 2 + 2 * 2 + 2 * 2 + 3 * 2 * 3  # q, k, v, o, MLP
    assert flops.head_weights(SMALL) == 10


def test_forward_by_hand():
    # Three tokens through 34 weights, two of them through the head's 10, and 1 + 2 + 3 keys of width 2, twice.
    assert flops.forward(SMALL, tokens=3, projected=2, keys=6) == 2 * 34 * 3 + 2 * 10 * 2 + 2 * (2 * 2 * 6)


def test_rollout_by_hand():
    # One prompt of 2 (keys 1 + 2); two requests of 2 and 1 tokens: one token is decoded (3 keys), three are chosen.
    prefill, decode = 2 * 34 * 2 + 8 * 3, 2 * 34 * 1 + 2 * 10 * 3 + 8 * 3
    counted = flops.rollout(SMALL, prefixes=np.array([2]), starts=np.array([2, 2]), new=np.array([2, 1]))
    assert counted == prefill + decode


def test_decode_traffic_by_hand():
    # Three tokens over two slots are two steps over 34 + 10 weights; one row reads 3 keys and values of width 2.
    two_slots = flops.decode_bytes(SMALL, starts=np.array([2, 2]), new=np.array([2, 1]), slots=2, itemsize=4)
    assert two_slots == 4 * (2 * 44 + 3 * 2 * 2)
    one_slot = flops.decode_bytes(SMALL, starts=np.array([2, 2]), new=np.array([2, 1]), slots=1, itemsize=4)
    assert one_slot - two_slots == 4 * 44


def test_keys_seen_counts_the_causal_triangle():
    starts, stops = np.array([0, 3, 5]), np.array([4, 3, 9])
    counted = sum(len(range(p + 1)) for a, b in zip(starts, stops, strict=True) for p in range(a, b))
    assert flops.keys_seen(starts, stops) == counted


def test_update_costs_three_forward_passes():
    sizes = {"rows": 2, "prompt_tokens": 3, "new_tokens": 4}
    one = flops.forward(SMALL, tokens=7, projected=4, keys=28)
    assert flops.scoring(SMALL, **sizes) == 2 * one
    assert flops.update(SMALL, **sizes) == 6 * one


def test_the_update_of_groups_needs_each_prompt_once():
    # Two groups of two: of four prompts of 3 tokens (keys 1 + 2 + 3) two are needed, forward and backward.
    sizes = dataclasses.replace(TINY, sequences=4, group=2, prompt_tokens=3, new_tokens=4)
    alone, groups = EXPERIMENTS["update"](Setting(SMALL, sizes, {"ours": sys.executable}))
    prompt = flops.forward(SMALL, tokens=3, projected=0, keys=6)
    assert alone.arms[0].flops - groups.arms[0].flops == 2 * 3 * prompt


def test_small_shape_has_as_many_weights_as_its_checkpoint():
    for shape in (SHAPES["tiny"], SHAPES["small"]):
        matrices = [w.size for w in checkpoint.weights(shape).values() if w.ndim == 2]
        assert sum(matrices) == flops.layer_weights(shape) + flops.head_weights(shape)


# -------------------------------------------------------------------------------------------------------------- inputs
def test_jobs_survive_their_journey():
    sent = job("lengths", "slots", rows=12)
    assert Job.from_json(sent.to_json()) == sent


def test_sequences_of_a_group_share_their_prompt_and_nothing_else():
    alone, groups = (workload.sequences(job("update", variant)) for variant in ("", "groups"))
    assert len(np.unique(alone[:, :8], axis=0)) == 4
    assert len(np.unique(groups[:, :8], axis=0)) == 2
    np.testing.assert_array_equal(groups[0, :8], groups[1, :8])
    np.testing.assert_array_equal(groups[:, 8:], alone[:, 8:])


def test_lengths_are_short_mostly_and_capped():
    drawn = workload.budgets(Sizes(slots=64, requests_per_slot=64))
    assert drawn.min() >= 1
    assert drawn.max() == 256
    assert np.median(drawn) == pytest.approx(40 * np.exp(-0.5), rel=0.05)


def test_boundaries_begin_at_the_prompt_and_stay_inside():
    assert workload.boundaries(Sizes()) == [64, 80, 96, 112, 128, 144, 160, 176]


def test_groups_share_prompts_and_ids_are_words():
    assert workload.prompts(job("rollout", "groups")).shape == (TINY.rows // TINY.group, TINY.prompt_tokens)
    distinct = workload.prompts(job("rollout", "distinct"))
    assert len(np.unique(distinct, axis=0)) == TINY.rows
    assert distinct.min() >= workload.FIRST_WORD
    assert workload.as_text(np.array([[17, 20]])) == ["w17 w20"]


# ------------------------------------------------------------------------------------------------------------- numbers
def outcome(name, seconds, *, tokens=100, first=5.0, **answer):
    rounds = [{"cpu_s": s, "wall_s": 2 * s, "peak_mb": 10.0, **answer} for s in seconds]
    arm = Arm(name, ours.__name__, sys.executable, job("rollout"), tokens, flops=1000, traffic=400)
    return Outcome(arm, rounds, {"cpu_s": first, "wall_s": 9.0, "peak_mb": 12.0})


def test_ratio_is_taken_round_by_round():
    found = table.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert str(found) == "2.00 [1.00-3.00]"


def test_row_compares_seconds_per_token():
    first, other = outcome("ours", [1.0, 2.0, 4.0]), outcome("hf", [2.0, 4.0, 8.0], tokens=50)
    cells = table.row(other, first, Limits(flops=1000.0, traffic=200.0))
    assert cells["CPU s"] == "4"
    assert cells["tokens/CPU s"] == "12"
    assert cells["time per token against the first row"] == "4.00 [4.00-4.00]"
    assert (cells["of matmul rate"], cells["of bandwidth"]) == ("0.25", "0.50")
    assert (cells["peak MB"], cells["first call minus steady"]) == ("12", "1.0")
    unknown = table.row(first, first, Limits())
    assert unknown["of matmul rate"] == unknown["predicted MB"] == "-"
    first.first["predicted_peak_mb"] = 11.4
    assert table.row(first, first, Limits())["predicted MB"] == "11.4"


def test_parts_of_a_step_are_shown():
    whole = outcome("ours", [3.0], parts={"generate": [7.0, 1.0]})
    assert table.row(whole, whole, Limits())["generate + rest"] == "1 + 2"


def test_wall_seconds_count_on_an_accelerator():
    one = outcome("ours", [1.0])
    one.arm = dataclasses.replace(one.arm, job=dataclasses.replace(one.arm.job, device="accelerator"))
    assert one.median == 2.0
    assert "wall s" in table.row(one, one, Limits())


def test_markdown_is_aligned():
    assert table.markdown([{"": "ours", "s": "1"}, {"": "hf", "s": "12.5"}]) == (
        "|      |    s |\n| ---- | ---: |\n| ours |    1 |\n| hf   | 12.5 |"
    )
    assert table.markdown([]) == ""


def test_parity_says_whether_the_model_is_the_same():
    arms = {"ours": [0.0, -1.0], "hf": [0.0, -1.00001], "tunix": [0.0, -1.1]}
    found = [Outcome(dataclasses.replace(outcome(name, []).arm), [], {"logprobs": v}) for name, v in arms.items()]
    same, other = table.parity_lines(found)
    assert same == "parity with hf: largest difference of 2 log-probs 1.0e-05, same model"
    assert other.endswith("1.0e-01, NOT the same model")


def test_peaks_go_by_the_name_of_the_chip():
    assert accelerator.limits("NVIDIA H100 80GB HBM3", None, None) == Limits(989e12, 3350e9)
    assert accelerator.limits("NVIDIA L4", 100.0, None) == Limits(100e12, 300e9)
    assert accelerator.limits("cpu", None, None) == Limits(0.0, 0.0)


def test_every_experiment_has_our_arm_first_and_counts_its_work():
    setting = Setting(SHAPES["small"], Sizes(), dict.fromkeys(("ours", "hf", "trl", "tunix"), "python"))
    experiments = [e for build in EXPERIMENTS.values() for e in build(setting)]
    assert len({e.name for e in experiments}) == len(experiments)
    for experiment in experiments:
        assert experiment.arms[0].module == ours.__name__
        assert all(arm.job.work in ours.WORKS for arm in experiment.arms)
        assert all(arm.flops > 0 and arm.tokens > 0 for arm in experiment.arms) or experiment.name == "parity"


# ---------------------------------------------------------------------------------------------------------------- runs
class TwoRounds:
    """A gate without a process: the first call and one more."""

    def repeat(self, run):
        self.answers = [run(), run()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "variant"),
    [
        ("parity", ""),
        ("rollout", "groups"),
        ("lengths", "slots"),
        ("monte_carlo", "shared"),
        ("update", "groups"),
        ("grpo", ""),
    ],
)
def test_our_side_does_every_work(work, variant):
    gate = TwoRounds()
    ours.WORKS[work](job(work, variant), gate)
    assert len(gate.answers) == 2
    if work == "parity":
        assert np.all(np.array(gate.answers[0]["logprobs"]) < 0)
        assert len(gate.answers[0]["logprobs"]) == TINY.sequences * TINY.new_tokens
    if work == "grpo":
        assert all(part > 0 for part in gate.answers[1]["parts"]["generate"])


@pytest.mark.slow
def test_a_command_prints_tables_and_skips_absent_peers_with_one_line(no_torch, tmp_path, capsys):
    out = tmp_path / "results"
    arguments = ["--shape", "tiny", "--only", "scoring", "--peers", "hf", "--rounds", "2"]
    assert command.main([*arguments, "--output-dir", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("hf: skipped: torch is not installed") == 1
    assert "float32 matrix product, numpy" in printed
    assert "| ours |" in printed
    assert (out / "results.md").read_text().count("Scoring: 4 sequences of 8 + 8, 2 at a time") == 1
    record = json.loads((out / "results.json").read_text())
    mine, peer = record["experiments"]["scoring"]
    assert len(mine["rounds"]) == 2
    assert mine["rounds"][0]["cpu_s"] > 0
    assert peer["problem"].startswith("skipped")
    assert "jax" in record["versions"]["ours"]


@pytest.mark.slow
def test_the_accelerator_command_runs_a_tiny_shape_on_cpu(tmp_path, capsys):
    arguments = ["--shape", "tiny", "--only", "scoring", "--peers", "none", "--rounds", "1", "--peak-tflops", "1"]
    assert accelerator.main([*arguments, "--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "cpu: 1 TFLOP/s" in printed
    assert "| ours |" in printed
    assert "wall s" in printed
    (scoring,) = json.loads((tmp_path / "results.json").read_text())["experiments"]["scoring"]
    weights = 4 * 2 * 32 * (128 / 2 + 8 * 4 * 2 + 8 * 2 * 2 + 3 * 64)  # bytes of the matrices
    assert weights / 2**20 < scoring["first"]["predicted_peak_mb"] < 10 * weights / 2**20


@pytest.mark.slow
def test_a_contender_that_fails_says_why_and_the_others_go_on(tmp_path):
    broken = Arm("ours", "benchmarks.roofline", sys.executable, job("no such work"), tokens=1)
    fine = Arm("numpy", "benchmarks.roofline", sys.executable, job("roofline", "numpy"), tokens=1)
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    first, second = compete([broken, fine], rounds=1, core=core, log_dir=tmp_path)
    assert first.problem.startswith("failed: KeyError: 'no such work'")
    assert len(second.rounds) == 1
    assert second.rounds[0]["gflops"] > 0


@pytest.mark.parametrize("sizes", [["--sequences", "4", "--group", "3"], ["--microbatch", "3"], ["--group", "0"]])
def test_sizes_that_do_not_divide_are_refused(sizes, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--shape", "tiny", "--only", "update", "--peers", "none", *sizes])
    assert ended.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "rolout"])
    assert "unknown 'rolout': known are parity, rollout" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------- selection
@pytest.mark.slow
def test_selection_prints_a_row_for_each_curriculum_and_copies_no_features(capsys):
    selection.main(shlex.split("--pools 200,300 --curricula frontier,uniform,plr --questions 4 --rounds 1 --steps 0"))
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] == ["curriculum", "200 questions", "300 questions"]
    assert [line[0] for line in lines[2:]] == ["frontier", "uniform", "plr"]
    cells = [re.fullmatch(r"([\d.]+) \(([\d.]+) \+ ([\d.]+)\)", cell) for line in lines[2:] for cell in line[1:]]
    assert all(cells)
    for cell in cells:
        both, propose, admit = map(float, cell.groups())
        assert both == pytest.approx(propose + admit, abs=0.011)


def test_groups_that_are_served_are_those_that_were_proposed():
    proposal = Proposal.opening(jnp.array([5, 2, 9]), 4).replace(mask=np.array([True, False, True]))
    served = selection._served(jax.device_get(proposal), np.random.default_rng(0))
    assert served.place.tolist() == [5, -1, 9]
    assert served.round.tolist() == [0, -1, 0]
    assert served.attempts.tolist() == served.rollouts.tolist() == [4, 0, 4]
    assert np.all(served.successes <= served.attempts)


# -------------------------------------------------------------------------------------------------------------- growth
def test_exponents_are_slopes_in_logarithms():
    points = [growth.Point(n, {"square": 3.0 * n**2, "level": 5.0, "once": 0.0}) for n in (2, 4, 16)]
    points[0].values["once"] = 1.0
    assert growth.exponent(points, "square") == pytest.approx(2)
    assert growth.exponent(points, "level") == pytest.approx(0, abs=1e-12)
    assert growth.curves(points) == ["square", "level"]
    cells = [cell.strip() for cell in growth.table({"width": points}).splitlines()[2].strip("|").split("|")]
    assert cells == ["width of the model", "2, 4, 16", "square", "12", "1.00, 4.00, 64.00", "2.00"]


def test_weights_of_the_planned_models():
    assert [round(growth.weights(shape) / 1e9, 2) for shape in growth.QWEN.values()] == [0.49, 1.54, 7.07]


def test_points_of_other_axes_stay_and_are_drawn(tmp_path, monkeypatch, capsys):
    (tmp_path / "growth.json").write_text(
        to_json({"depth": [growth.Point(n, {"update": 0.1 * n})._asdict() for n in (1, 2)]})
    )
    doubled = growth.AXES["questions"]._replace(points=lambda rounds: (growth.Point(n, {"a": 2 * n}) for n in (1, 2)))
    monkeypatch.setitem(growth.AXES, "questions", doubled)
    monkeypatch.setattr(sys, "argv", ["growth", "--axes", "questions", "--output-dir", str(tmp_path)])
    growth.main()
    assert list(growth.read(tmp_path / "growth.json")) == ["questions", "depth"]
    assert capsys.readouterr().out.count("| 1.00, 2.00 | 1.00 |") == 2
    assert "layers of the model" in (tmp_path / "growth.svg").read_text()


def test_a_phase_is_measured_once(monkeypatch):
    calls = []
    works = {"scoring": lambda job, gate: gate.repeat(lambda: calls.append(job))}
    monkeypatch.setattr(ours, "WORKS", works)
    monkeypatch.setattr(growth, "_MEASURED", {})
    assert growth.measured("scoring", growth.SHAPE, TINY, 3) == growth.measured("scoring", growth.SHAPE, TINY, 3) >= 0
    assert calls == [Job("scoring", "", growth.SHAPE, TINY)] * 4


# ------------------------------------------------------------------------------------------------------------- packing
def test_forms_take_turns_and_the_first_turn_does_not_count():
    done = []
    forms = [
        packing.Prepared(functools.partial(done.append, f"{n}s"), functools.partial(done.append, f"{n}u"), {})
        for n in "ab"
    ]
    found = packing.turns(forms, 3)
    assert done == ["as", "au", "bs", "bu"] * 4
    assert [{name: len(values) for name, values in seconds.items()} for seconds in found] == [
        {"scoring": 3, "update": 3, "both": 3}
    ] * 2


@pytest.mark.slow
def test_shared_prompts_compute_fewer_tokens():
    work = packing.Work("", 2, 2, 8, 4, microbatches=1, remat="none", chunk=64, steps=1, equal=0, full=True)
    batch = packing.training_batch(work, 16)
    assert batch.sequences.completion_lengths.tolist() == [4] * 4
    plain, shared = packing.together(["plain", "shared"], work)
    assert plain["tokens"] == 4 * 12
    assert 2 * (8 + 2 * 4) <= shared["tokens"] < plain["tokens"]
    assert plain["both_times_less"] == [1.0, 1.0, 1.0]
    assert shared["update_cpu_seconds"] > 0
    (fewer,) = packing.together(["shared"], work._replace(equal=1))
    assert fewer["tokens"] <= shared["tokens"] / 2 + 8
