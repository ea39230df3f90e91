"""Several processes: what they exchange, by hand; and runs in two processes, each against the same run in one."""

import json
import os
import signal
import time

import pytest
from several_hosts import ended, run, start, wait_for
from test_mesh import arguments as command_line

from lilo_jax import config as configuration
from lilo_jax.errors import RunError, UsageError
from lilo_jax.evaluation.responses import Graded, settled
from lilo_jax.grading.judgement import Judgement
from lilo_jax.grading.workers import _done
from lilo_jax.processes import hosts
from lilo_jax.questions import Verdict
from lilo_jax.storage.run_directory import RunDirectory, SilentRunDirectory


# ----------------------------------------------------------------------------------------------------- one process
def test_options_that_name_the_processes_are_taken_from_the_command_line():
    assert hosts.begin(["--num-steps", "3"]) == ["--num-steps", "3"]
    one = ["--distributed.coordinator=here:1", "--distributed.processes=1", "--distributed.process", "0"]
    assert hosts.begin(["--a", *one, "--b=c=d"]) == ["--a", "--b=c=d"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--distributed.coordinator here:1", "--distributed.processes is missing"),
        ("--distributed.processes 2 --distributed.process 0", "--distributed.coordinator is missing"),
        ("--distributed.hosts 2", "unknown option --distributed.hosts; known: --distributed.coordinator"),
        ("--distributed.coordinator", "--distributed.coordinator needs a value"),
        ("--distributed.coordinator h:1 --distributed.processes two --distributed.process 0", "whole number, not two"),
        ("--distributed.coordinator h:1 --distributed.processes 2 --distributed.process 2", "must be from 0 to 1"),
    ],
)
def test_what_does_not_name_the_processes_is_refused(given, says):
    with pytest.raises(UsageError, match=says):
        hosts.begin(given.split())


@pytest.mark.parametrize(
    ("name", "value", "several"),
    [
        ("SLURM_STEP_NUM_TASKS", "2", True),
        ("SLURM_STEP_NUM_TASKS", "1", False),
        ("OMPI_COMM_WORLD_SIZE", "4", True),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_WORKER_HOSTNAMES", "localhost", False),
    ],
)
def test_launchers_are_recognised(monkeypatch, name, value, several):
    monkeypatch.setenv(name, value)
    assert hosts._launched() is several


@pytest.mark.parametrize(
    ("chips", "platforms", "joins"), [([], "", 0), (["/dev/accel0"], "cpu", 0), (["x"], "tpu,cpu", 1)]
)
def test_a_tpu_knows_whether_it_has_other_hosts(monkeypatch, chips, platforms, joins):
    asked = []

    def initialize(*who, **how):
        asked.append(who)
        raise ValueError("coordinator_address should be defined.")  # a TPU without metadata

    monkeypatch.setattr(hosts.jax.distributed, "initialize", initialize)
    monkeypatch.setattr(hosts.glob, "glob", lambda pattern: chips)
    monkeypatch.setattr(hosts.importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setenv("JAX_PLATFORMS", platforms) if platforms else monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert hosts.begin(["--a"]) == ["--a"]
    assert len(asked) == joins


def test_one_process_exchanges_with_itself():
    assert (hosts.number(), hosts.index(), hosts.is_first(), hosts.is_mine(7)) == (1, 0, True, True)
    assert hosts.gathered({"a": 1}) == [{"a": 1}]
    hosts.agree("now", lambda: {"x": float("nan")})
    hosts.wait()


def test_the_first_decision_that_differs_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "number", lambda: 2)
    monkeypatch.setattr(hosts, "gathered", lambda own: [own, {**own, "b": 3, "c": 4}])
    with pytest.raises(RunError, match="in step 5, the hosts differ in b: 2 on host 0 and 3 on host 1"):
        hosts.agree("in step 5", lambda: {"a": 1, "b": 2, "c": 3})


def test_judgements_that_others_made_are_taken_over(monkeypatch):
    right, wrong = Judgement(Verdict.CORRECT), Judgement(Verdict.WRONG)
    monkeypatch.setattr(hosts, "gathered", lambda own: [own, {1: wrong}])
    assert settled([Graded("a", _done(right)), Graded("b", None)]) == [right, wrong]


def test_only_the_first_process_writes(tmp_path):
    silent = SilentRunDirectory(tmp_path / "run")
    silent.append("metrics", {"step": 0})
    silent.write_rollouts(0, [{"a": 1}])
    silent.write_generations(0, "test", [], only=True)
    silent.mark("DONE", "1 steps")
    silent.log("said")
    silent.describe({}, b"")
    silent.rewind({})
    silent.write_tokenizer(lambda path: path.mkdir(parents=True))
    assert silent.written() == {}
    assert not (tmp_path / "run").exists()
    public = [name for name in vars(RunDirectory) if not name.startswith("_")]
    writes = {"mark", "append", "write_rollouts", "write_generations", "rewind", "log", "describe", "store_config"}
    assert writes | {"write_tokenizer", "written"} == set(public) & set(vars(SilentRunDirectory))


# --------------------------------------------------------------------------------------------------- two processes
@pytest.fixture(scope="module")
def base(tiny_config, tiny_start):
    """The command line of a tiny run of four steps on four devices."""
    config = configuration.replace(
        tiny_config, num_steps=4, model__path=tiny_start, sft__steps=0, rollout__max_new_tokens=6,
        evaluation__every=2, evaluation__splits=("test",), update__minibatches=2, storage__save_every=1,
    )  # fmt: skip
    return command_line(config)


CASES = {
    "LILO, PPO; rows and weights over processes": ["--mesh.data", "2", "--mesh.fsdp", "2"],
    "frontier, VinePPO, adapters; heads over processes": [
        *("--mesh.data", "1", "--mesh.tensor", "2", "--mesh.fsdp", "2", "--curriculum", "frontier"),
        *("--algorithm", "vineppo", "--lora.rank", "2", "--curriculum.refresh-every", "2"),
    ],
}


@pytest.fixture(scope="module", params=CASES)
def both(request, base, tmp_path_factory):
    """The run of one process with four devices, and that of two with two each."""
    root = tmp_path_factory.mktemp("hosts")
    options = [*base, *CASES[request.param]]
    one = start([*options, "--output-dir", str(root / "one")], processes=1, devices=4)
    two = start([*options, "--output-dir", str(root / "two")])
    for statuses, printed in (ended(one), ended(two)):
        assert set(statuses) == {0}, "\n".join(text[-3000:] for text in printed)
    return RunDirectory(root / "one"), RunDirectory(root / "two"), options


def near(value):
    """What is equal to a JSON value but for rounding."""
    if isinstance(value, dict):
        return {name: near(part) for name, part in value.items()}
    if isinstance(value, list):
        return [near(part) for part in value]
    return pytest.approx(value, rel=1e-6, abs=1e-6) if isinstance(value, float) else value


def assert_same_run(found, expected):
    """The same questions, tokens, verdicts, evaluations and books; metrics to rounding."""
    assert found.rollouts() == expected.rollouts()
    assert found.read("ledger") == expected.read("ledger")
    for records in ("metrics", "eval"):
        for here, there in zip(found.read(records), expected.read(records), strict=True):
            assert here == near(there)


@pytest.mark.slow
def test_two_processes_are_one_run(both):
    one, two, _ = both
    assert json.loads((two.path / "environment.json").read_text())["processes"] == 2
    assert len(two.read("metrics")) == 4
    assert (two.path / "host_1.txt").read_text().count("after 4 steps") == 1
    assert_same_run(two, one)


@pytest.mark.slow
@pytest.mark.parametrize("both", [next(iter(CASES))], indirect=True)
def test_a_signal_to_one_process_stops_all_after_the_same_step_and_another_number_of_them_goes_on(both, tmp_path):
    one, _, options = both
    options = [*options, "--output-dir", str(tmp_path / "run")]
    started = start(options)
    wait_for(tmp_path / "run" / "metrics.jsonl", 1, started)
    started[1].send_signal(signal.SIGTERM)
    statuses, printed = ended(started, within=60)
    assert statuses == [143, 143]
    assert all("stopped by SIGTERM after" in text for text in printed)
    assert not (tmp_path / "run" / "DONE").exists()
    run(options, processes=1, devices=4)
    assert_same_run(RunDirectory(tmp_path / "run"), one)


@pytest.mark.slow
@pytest.mark.parametrize("host", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_the_run_goes_on_from_its_checkpoint(base, host, tmp_path):
    options = [*base, *CASES[next(iter(CASES))], "--output-dir", str(tmp_path / "run")]
    started = start(options)
    wait_for(tmp_path / "run" / "metrics.jsonl", 2, started)
    begun = time.monotonic()
    os.kill(started[host].pid, signal.SIGKILL)
    statuses, _ = ended(started, within=60)
    assert time.monotonic() - begun < 60
    assert statuses[host] == -signal.SIGKILL
    assert statuses[1 - host] != 0
    if host == 1:
        run(options)
        assert RunDirectory(tmp_path / "run").is_done()


PLANTED = {
    "an exception": (
        """
        from lilo_jax.training import trainer
        update = trainer.update
        def fails(*arguments):
            if host == 1:
                raise RuntimeError("planted")
            return update(*arguments)
        trainer.update = fails
        """,
        "planted",
    ),
    "a reward": (
        """
        from lilo_jax.evaluation.judge import Judge
        rewarded = Judge.rewarded
        Judge.rewarded = lambda *arguments: (rewarded(*arguments)[0], rewarded(*arguments)[1] + host)
        """,
        "in step 0, the hosts differ in the rewards",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", PLANTED)
def test_what_goes_wrong_on_one_host_ends_all(base, what, tmp_path):
    plant, says = PLANTED[what]
    begun = time.monotonic()
    statuses, printed = ended(start([*base, "--output-dir", str(tmp_path / "run")], plant=plant))
    assert all(status not in (0, -signal.SIGKILL) for status in statuses), (statuses, time.monotonic() - begun)
    assert any(says in text for text in printed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "says"),
    [
        ((["--seed", "3"], ["--seed", "4"]), "at the start, the hosts differ in seed: 3 on host 0 and 4 on host 1"),
        ((["--task.pool", "64"], ["--task.pool", "65"]), "the hosts differ in task.pool"),
    ],
)
def test_hosts_with_other_options_are_refused_before_anything_is_written(base, own, says, tmp_path):
    statuses, printed = ended(start([*base, "--output-dir", str(tmp_path / "run")], own=own))
    assert statuses == [1, 1]
    assert all(says in text for text in printed), printed
    assert not (tmp_path / "run").exists()
