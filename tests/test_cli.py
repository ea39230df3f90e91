"""The console script on a finished run."""

import sys

import jax
import pytest

from lilo_jax import cli


def lilo(monkeypatch, capsys, *args):
    """Printed lines of `lilo ARGS`."""
    monkeypatch.setattr(sys, "argv", ["lilo", *map(str, args)])
    cli.main()
    return capsys.readouterr().out.splitlines()


def test_doctor_names_versions_and_devices(monkeypatch, capsys):
    lines = lilo(monkeypatch, capsys, "doctor")
    assert f"jax {jax.__version__}" in lines
    assert sum(line.startswith("device ") for line in lines) == jax.device_count()


def test_digest_prints_a_fingerprint_of_each_part_sorted_by_run(monkeypatch, capsys, tiny_run):
    _, directory = tiny_run
    lines = lilo(monkeypatch, capsys, "digest", directory.path)
    assert lines == lilo(monkeypatch, capsys, "digest", directory.path)
    names = [line.split("  ")[1] for line in lines]
    assert {"metrics.jsonl", "eval.jsonl", "ledger.jsonl", "checkpoint/record"} <= set(names)
    assert any(name.startswith("checkpoint/policy/params/trunk") for name in names)
    assert all(len(line.split("  ")[0]) == 64 and str(directory.path) not in line for line in lines)


def test_report_writes_what_it_prints(monkeypatch, capsys, tiny_run, tmp_path):
    _, directory = tiny_run
    output = tmp_path / "report.html"
    assert lilo(monkeypatch, capsys, "report", directory.path, "--output", output) == [str(output)]
    assert "<svg" in output.read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [(["digst"], "invalid choice: 'digst'"), (["digest", "/nowhere"], "no run with a checkpoint in /nowhere")],
)
def test_mistakes_are_one_line_and_exit_2(args, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lilo", *args])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1
