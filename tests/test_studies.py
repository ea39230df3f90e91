"""The catalogue of the paper: what each study declares, what runs share, and what is recorded."""

import dataclasses
import json
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest
import scipy.stats

import experiments.all
from experiments import record, sceptics
from experiments.controls import Scored
from experiments.gradients import advantages, of_checkpoint, outcome
from experiments.presets import tiny, uniform_and_lilo
from experiments.recipes import ARMS, RECIPES, recipe
from experiments.study import LABELS, PRESETS, Finding, is_trained, rule_text
from experiments.study_runs import _counting, main, parse, planned, run_name, start_name, verdict_of
from lilo_jax import config as configuration
from lilo_jax.config import Config
from lilo_jax.curriculum.literature.mopps import Mopps
from lilo_jax.curriculum.rules.lilo import Lilo
from lilo_jax.errors import RunError, UsageError
from lilo_jax.storage.run_directory import RunDirectory

STUDIES = experiments.all.studies()
ALL = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)


def test_the_catalogue_is_complete():
    assert [study.id for study in STUDIES] == list(range(1, 35))
    assert len({study.name for study in STUDIES}) == 34


@ALL
def test_a_study_says_what_it_shows(study):
    path = pathlib.Path(experiments.all.__file__).parent / "paper" / f"{study.name}.py"
    assert study.module == f"experiments.paper.{path.stem}"
    assert all(study.said(label) for label in LABELS)
    assert study.said("Command") == f"python -m {study.module} --preset tiny"
    assert study.title
    assert len(path.read_text().splitlines()) <= 130


@ALL
def test_the_configs_of_every_preset_build_and_reload(study):
    for preset in PRESETS:
        settings = study.preset(preset)
        assert settings
        for given in filter(is_trained, settings.values()):
            arms = study.arms(given)
            assert len(set(arms.values())) >= (2 if preset == "tiny" else 1)
            for arm in arms.values():
                pool = getattr(arm.task, "pool", 7000)  # at most what the published sets have
                arm.curriculum.build(pool_size=pool, questions=arm.rollout.questions, samples=arm.rollout.samples)
                arm.algorithm.build()
            assert configuration.from_dict(json.loads(json.dumps(configuration.to_dict(arm)))) == arm


def test_recipes_are_those_of_the_paper():
    """Foster et al. 2025 leave VinePPO's and Oat's numbers as they are."""
    for name in ("rho1b_math_ppo", "rho1b_gsm8k_ppo", "rho1b_math_vineppo", "rho1b_gsm8k_vineppo"):
        config = recipe(name)
        batch, update, optimizer = config.rollout, config.update, config.optimizer
        assert (batch.questions * batch.samples, update.epochs * update.minibatches) == (512, 16)
        assert (batch.temperature, batch.top_p, batch.max_new_tokens) == (0.6, 0.9, 1024)
        steps = {"math": 1000, "gsm8k": 650}["math" if "math" in name else "gsm8k"]
        assert (config.num_steps, optimizer.warmup_steps) == (steps, round(0.03 * 16 * steps))
        assert (optimizer.learning_rate, optimizer.schedule, optimizer.weight_decay) == (1e-6, "linear", 0.0)
        assert config.curriculum.pool_ratio == (8 if name == "rho1b_gsm8k_vineppo" else 4)
        assert config.protocol.samples == 16
        assert config.protocol.temperature == 0.35
    assert recipe("rho1b_gsm8k_vineppo").algorithm.rollouts == 9
    assert recipe("rho1b_gsm8k_vineppo").algorithm.max_steps == 25
    grpo = recipe("qwen2_5_1_5b_orz57k_grpo")
    assert (grpo.rollout.questions, grpo.rollout.samples, grpo.rollout.max_new_tokens) == (128, 8, 3000)
    assert (grpo.update.minibatches, grpo.optimizer.beta2, grpo.algorithm.kl_coefficient) == (8, 0.95, 0.0)
    assert len(RECIPES) == 7


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_differs_between_arms_by_its_curriculum_alone(name):
    configs = [recipe(name, arm) for arm in ARMS]
    assert len({type(config.curriculum) for config in configs}) == 3
    assert len({configuration.replace(config, curriculum=Lilo()) for config in configs}) == 1


def test_pools_of_every_size_are_simulated_and_every_way_to_spend_32_rollouts():
    (study,) = (study for study in STUDIES if study.name == "pool_ratio")
    ratios, *spent = study.tiny.values()
    assert [rule.pool_ratio for rule in ratios.rules.values()] == [1, 2, 4, 8, 16]
    assert [next(iter(cell.rules.values())).pool_ratio * cell.samples for cell in spent] == [32] * 4


def test_unknown_recipes_presets_and_studies_are_refused():
    with pytest.raises(UsageError, match="did you mean 'rho1b_math_ppo'"):
        recipe("rho1b_math_pp")
    with pytest.raises(UsageError, match="did you mean 'tiny'"):
        parse(STUDIES[0], ["--preset", "tin"])
    with pytest.raises(UsageError, match="did you mean 'vineppo'"):
        experiments.all.chosen("ppo,vinepp", STUDIES)
    with pytest.raises(UsageError, match="nothing is trained"):
        parse(STUDIES[20], ["--num-steps", "3"])
    with pytest.raises(UsageError, match="would be ignored"):
        parse(STUDIES[0], ["--curriculum", "mopps"])


def test_runs_of_one_configuration_have_one_name():
    arms = uniform_and_lilo(tiny())
    other = configuration.replace(arms["lilo"], seed=7)
    assert run_name(other) == run_name(arms["lilo"]) != run_name(arms["uniform"])
    assert start_name(other) == start_name(arms["uniform"])
    assert start_name(configuration.replace(other, sft__batch=8)) != start_name(other)


def test_what_is_to_be_run_is_counted_before_it_is(tmp_path):
    """Two arms x five seeds; of going on a first run more, whose end names the runs that begin there."""
    by_name = {study.name: study for study in STUDIES}
    args = ["--output-dir", str(tmp_path)]
    places = {}
    for name in ("ppo", "selected_learnability", "continued_training", "exact_bandit"):
        options, settings = parse(by_name[name], args)
        places[name] = planned(by_name[name], settings, options)
    assert [len(found) for found in places.values()] == [10, 10, 15, 0]
    assert places["ppo"] == places["selected_learnability"]
    assert not any(places["ppo"].values())
    one = next(iter(places["ppo"]))
    one.mkdir(parents=True)
    RunDirectory(one).mark("DONE", "60 steps")
    options, settings = parse(by_name["ppo"], args)
    assert [place for place, done in planned(by_name["ppo"], settings, options).items() if done] == [one]


def test_cpu_time_of_calls_that_were_cut_short_counts(tmp_path):
    path = tmp_path / "cpu_seconds.txt"
    path.write_text("100.0\n")
    with pytest.raises(ZeroDivisionError), _counting(path):
        1 / (sum(range(10**6)) * 0)
    before = float(path.read_text())
    assert 100 < before < 110
    with _counting(path) as spent:
        sum(range(10**6))
    assert before < spent() == float(path.read_text()) < 110


@pytest.mark.parametrize(
    ("low", "high", "claim", "verdict"),
    [
        (0.1, 0.2, "above", "agrees"),
        (0.1, 0.2, "below", "disagrees"),
        (-0.1, 0.2, "above", "open"),
        (-0.1, 0.2, "near", "agrees"),
        (0.1, 0.2, "near", "disagrees"),
        (0.1, 0.2, "none", "no claim"),
        (None, None, "above", "open"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(low, high, claim, verdict):
    value = {"mean": 0.1, "low": low, "high": high, "seeds": "3"}
    assert Finding("x", value, 0.0, claim).verdict == verdict


def test_a_study_is_as_good_as_its_worst_finding():
    sure, doubtful, against = (
        Finding("x", {"mean": mean, "low": low, "high": high, "seeds": "3"}, 0.0, "above")
        for low, mean, high in ((1, 2, 3), (-1, 2, 3), (-3, -2, -1))
    )
    assert verdict_of([sure, sure._replace(claim="none")]) == "agrees"
    assert verdict_of([sure, doubtful]) == "open"
    assert verdict_of([sure, doubtful, against]) == "disagrees"
    assert verdict_of([sure._replace(claim="none")]) == "no claim"


def test_a_rule_is_written_as_the_simulator_reads_it():
    from experiments.simulate_selection import parse_arm

    for rule in (Lilo(pool_ratio=2), Mopps(), Scored("band", drawn=True)):
        assert parse_arm(rule_text(rule)).spec == rule


def test_the_rows_of_table_2_in_the_docs_are_those_of_the_results():
    root = pathlib.Path(experiments.all.__file__).parent.parent
    page = (root / "docs" / "results" / "index.md").read_text()
    rows = page.split("<!-- tiny: of experiments/results.json")[1].split("<!-- end of tiny -->")[0].splitlines()[3:]
    results = record.read()["tiny"]
    measured = {f["shown"] for name in ("speedup", "out_of_distribution") for f in results[name]["findings"]}
    assert len(rows) == 14
    for row in rows:
        name, *cells = (cell.strip() for cell in row.strip("|").split("|"))
        assert len(cells) == 4
        for cell in cells:
            assert any(shown.endswith(f": {cell}") for shown in measured), (name, cell)


def test_readme_and_docstrings_are_those_that_the_results_make():
    here = pathlib.Path(experiments.all.__file__).parent
    results = record.read()
    assert (here / "README.md").read_text() == record.readme(STUDIES, results)
    for study in STUDIES:
        source = (here / "paper" / f"{study.name}.py").read_text()
        assert source == record.with_last_run(source, record.last_run(study.name, results))


def test_a_recorded_run_stands_in_the_docstring():
    source = '"""Title.\n\nClaim: x.\nLast run: not run.\n"""\n\nx = """Last run: y\n"""\n'
    changed = record.with_last_run(source, "tiny, agrees:\n    a: 1 (3)")
    assert changed == source.replace("not run.", "tiny, agrees:\n    a: 1 (3)")
    assert record.with_last_run(changed, "not run.") == source


def test_values_of_states_are_those_of_what_is_left_of_the_answer():
    """One answer of two tokens and the end, each of probability 1/2; worked by hand."""
    answers, logprobs = np.array([[5, 6, 1, 0]]), np.log(np.array([[0.5, 0.5, 0.5, 1.0]]))
    logprobs[0, 3] = 0
    tokens = np.array([[[5, 6, 1, 0], [5, 7, 1, 0], [5, 6, 1, 9], [5, 6, 6, 6]]])
    reward, increments = outcome(tokens, np.array([[3, 3, 3, 4]]), answers, np.array([3]), logprobs)
    np.testing.assert_array_equal(reward, [[1, 0, 1, 0]])
    right = [1 / 4 - 1 / 8, 1 / 2 - 1 / 4, 1 - 1 / 2, 0]
    np.testing.assert_allclose(increments[0], [right, [1 / 8, -1 / 4, 0, 0], right, [1 / 8, 1 / 4, -1 / 2, 0]])
    np.testing.assert_allclose(increments.sum(axis=2), reward - 1 / 8)


def test_estimators_are_those_of_the_library():
    """Two rewards of one question against the formulas, by hand: mean 1/2, deviation with divisor n - 1 sqrt(1/2)."""
    found = advantages(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(found["reinforce"][0, :, 0], [1, 0])
    np.testing.assert_allclose(found["rloo"][0, :, 0], [1, -1])
    np.testing.assert_allclose(found["grpo_unnormalised"][0, :, 0], [0.5, -0.5])
    np.testing.assert_allclose(found["grpo_normalised"][0, :, 0], [2**-0.5, -(2**-0.5)])


TINY = shlex.split("""--seeds 2 --num-steps 4 --jobs 1 --task.pool 64 --task.validation 8 --task.test 8 --task.longer 4
    --task.demonstrations 64 --model.num-layers 1 --model.embed-dim 16 --model.num-heads 2 --model.num-kv-heads 1
    --model.head-dim 8 --model.mlp-dim 16 --sft.steps 2 --sft.batch 8 --evaluation.every 2 --evaluation.rows 8""")


@pytest.mark.slow
def test_studies_share_their_runs_go_on_and_report_what_failed(monkeypatch, tmp_path, capsys):
    out, kept = tmp_path / "out", tmp_path / "kept"

    def call(only):
        command = ["all", "--only", only, *TINY, "--output-dir", str(out), "--record", str(kept)]
        monkeypatch.setattr(sys, "argv", command)
        experiments.all.main()
        return {path.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")}

    first = call("ppo,12")
    assert len(first) == 4  # two arms, two seeds, and item 12 has the same
    names = {path.parts[-2].rpartition("_")[0] for path in first}
    assert names == {"uniform_ppo", "lilo_ppo"}
    results = json.loads((kept / "results.json").read_text())
    assert results["tiny"].keys() == {"ppo", "selected_learnability"}
    assert results["tiny"]["ppo"]["seeds"] == [301, 302]
    assert "| 12 | How learnable" in (kept / "README.md").read_text()
    page = (out / "tiny" / "index.html").read_text()
    assert 'href="ppo/chain.html"' in page
    assert (out / "tiny" / "ppo" / "chain.html").exists()

    def fails(evidence):
        raise RuntimeError("an unforeseen error")
        yield

    broken = dataclasses.replace(STUDIES[16], tiny=STUDIES[0].tiny, measures=(fails,))
    monkeypatch.setattr(experiments.all, "studies", lambda: [*STUDIES[:16], broken, *STUDIES[17:]])
    capsys.readouterr()
    with pytest.raises(RunError, match=r"1 of 2 studies failed \(outcome_histogram\)"):
        call("outcome_histogram,ppo")
    assert "an unforeseen error" in capsys.readouterr().out
    assert {path.relative_to(out): path.stat().st_mtime_ns for path in out.rglob("metrics.jsonl")} == first


@pytest.mark.slow
def test_gradients_of_a_checkpoint(monkeypatch, tmp_path, capsys):
    """Item 20 on a tiny model: a correlation at every checkpoint; two ways to the size of a gradient agree."""
    study = next(study for study in STUDIES if study.id == 20)
    monkeypatch.setattr(sys, "argv", ["gradient_norm", *TINY, "--seeds", "1", "--output-dir", str(tmp_path)])
    main(study)
    said = capsys.readouterr().out
    assert len(re.findall(r"exact, (?:tenth|half|end) \| [+-]\d", said)) == 3
    table = (tmp_path / "tiny" / "gradient_norm" / "table.md").read_text()
    assert "| end | exact | 301 |" in table
    (run,) = (
        path.parent for path in tmp_path.rglob("DONE") if "uniform" in str(path) and "4 steps" in path.read_text()
    )
    found = of_checkpoint(str(run))
    right = found.reward == 1  # REINFORCE's gradient of a question with one right rollout is that rollout's
    alone = right.sum(axis=1) == 1
    np.testing.assert_allclose(
        found.squares["reinforce"][alone], (found.response * right).sum(axis=1)[alone] / right.shape[1] ** 2, rtol=1e-3
    )
    # grad p = E[r grad log pi], whose squared norm is at most p (1 - p) E||sum g||^2 (theorem 3.1).
    assert np.all(found.squares["exact"] >= 0)
    assert found.tokens.products.shape == (*found.tokens.mask.shape, found.tokens.mask.shape[2])
    np.testing.assert_allclose(found.tokens.increments.sum(axis=2), found.reward - found.success[:, None], atol=1e-6)


def test_print_config_shows_every_arm(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ppo", "--preset", "paper", "--print-config"])
    main(STUDIES[0])
    printed = json.loads(capsys.readouterr().out)
    assert printed["rho1b_gsm8k_ppo"]["config"]["num_steps"] == 650
    assert printed.keys() == STUDIES[0].paper.keys()
    assert printed["rho1b_gsm8k_ppo"]["arms"] == {"uniform": {"curriculum.name": "uniform"}, "lilo": {}}
    assert isinstance(configuration.from_dict(printed["rho1b_math_ppo"]["config"]), Config)


def test_the_page_for_sceptics_has_the_table_that_the_command_prints(monkeypatch):
    root = pathlib.Path(experiments.all.__file__).parent.parent
    page = (root / "docs" / "results" / "sceptics.md").read_text()
    (command,) = re.findall(r"^python -m experiments.sceptics (.*)$", page, re.MULTILINE)
    monkeypatch.chdir(root)
    assert f"\n\n{sceptics.table(tuple(command.split()))}\n\n" in page


def test_the_sceptics_interval_is_the_paired_t_interval(tmp_path):
    results = json.loads((pathlib.Path(experiments.all.__file__).parent.parent / "docs/results/rloo.json").read_text())
    final = results["final"]
    points = [100 * (final["lilo"]["by_seed"][s] - value) for s, value in final["uniform"]["by_seed"].items()]
    exact = scipy.stats.ttest_1samp(points, 0).confidence_interval()
    (row,) = [row for row in sceptics.rows("rloo.json", results) if row[1] == "`lilo`"]
    shown = [float(number) for number in re.findall(r"[+-][\d.]+", row[3])]
    np.testing.assert_allclose(shown, [np.mean(points), exact.low, exact.high], atol=0.011)
    few = tmp_path / "few.json"
    few.write_text(json.dumps({"baseline": "uniform", "final": {"uniform": {"by_seed": {"1": 0.5}}}}))
    with pytest.raises(UsageError, match="1 seeds, and the summary wants 12"):
        sceptics.table((str(few),))
    with pytest.raises(UsageError, match="is no file of results"):
        sceptics.table((str(tmp_path / "nothing.json"),))
