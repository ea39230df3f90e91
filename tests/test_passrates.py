"""Success rates of a task's questions: written as they are known, gone on with, filtered beside a control."""

import json
import sys

import pytest
from pretrained_models import write_qwen2

from lilo_jax.cli import _main
from lilo_jax.errors import UsageError
from lilo_jax.pretrained import passrates
from lilo_jax.pretrained.passrates import histogram, keep, settle


def line(number, successes, attempts=4):
    return {"id": str(number), "question": f"q{number}", "answer": "1", "attempts": attempts, "successes": successes}


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_questions_between_the_bounds_are_kept_and_as_many_drawn_at_random(tmp_path):
    lines = [line(i, i % 5) for i in range(40)] + [line(40, 0, attempts=0)]
    assert keep(lines, 0.25, 0.75, tmp_path / "rates.jsonl", seed=1) == 24
    kept, control = read(tmp_path / "rates.kept.jsonl"), read(tmp_path / "rates.control.jsonl")
    assert [row["id"] for row in kept] == [str(i) for i in range(40) if i % 5 in (1, 2, 3)]
    assert kept[0] == {"id": "1", "question": "q1", "answer": "1"}
    assert len(control) == 24
    assert len({row["id"] for row in control}) == 24
    assert {row["id"] for row in control} != {row["id"] for row in kept}
    assert keep(lines, 0.3, 0.4, tmp_path / "rates.jsonl", seed=1) == 0
    assert read(tmp_path / "rates.kept.jsonl") == []
    assert histogram(lines) == "40 questions, mean 0.500: 8 never solved, 24 sometimes, 8 always"


def test_a_file_that_came_about_otherwise_is_not_gone_on_with(tmp_path):
    output = tmp_path / "rates.jsonl"
    settle(output, {"samples": 4})
    settle(output, {"samples": 4})
    with pytest.raises(UsageError, match=r"made with other settings, which are in rates\.jsonl\.settings\.json"):
        settle(output, {"samples": 8})
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="is no file of pass rates"):
        settle(tmp_path / "other.jsonl", {})


@pytest.mark.slow
def test_a_call_that_was_stopped_goes_on_to_the_same_rates(tmp_path, monkeypatch, capsys):
    model, questions = write_qwen2(tmp_path / "model"), tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{i} + 1", "answer": str(i + 1)}) + "\n" for i in range(30)))
    monkeypatch.setattr(passrates, "BLOCK", 8)

    def called(output, *more):
        command = ["lilo", "passrates", str(model), "--task", str(questions), "--samples", "2", "--max-new-tokens", "3"]
        monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / output), *more])
        _main()
        return read(tmp_path / output)

    whole = called("whole.jsonl")
    assert len(whole) == 24  # the training split
    assert all(one["attempts"] == 2 and one["tokens"] >= 2 for one in whole)
    text = (tmp_path / "whole.jsonl").read_text()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(text.splitlines(keepends=True)[:11]) + '{"id": "ha')
    settings = (tmp_path / "whole.jsonl.settings.json").read_text()
    (tmp_path / "cut.jsonl.settings.json").write_text(settings)
    assert called("cut.jsonl", "--keep", "0,0") == whole
    said = capsys.readouterr().out
    assert "24 questions, mean" in said
    assert "kept in cut.kept.jsonl" in said
    with pytest.raises(UsageError, match="made with other settings"):
        called("cut.jsonl", "--seed", "4")
    with pytest.raises(UsageError, match="--keep is LOW,HIGH"):
        called("cut.jsonl", "--keep", "0.9,0.1")
    cut.write_text(text.replace('"id": "', '"id": "x', 1))
    with pytest.raises(UsageError, match="holds other questions than the task"):
        called("cut.jsonl")
