"""Prompt styles, character for character."""

import pytest

from lilo_jax.errors import UsageError
from lilo_jax.tasks.prompts import STYLES, prompt_style

QUESTION = r"What is $\frac{1}{2}$ of {8}?"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", QUESTION + "\n"),
        ("none", QUESTION),
        ("vineppo", f"[MATH_TASK] Problem:\n{QUESTION}\n\nSolution:"),
        (
            "qwen_math",
            "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
            "<|im_start|>user\n" + QUESTION + "<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_styles(name, expected):
    assert prompt_style(name)(QUESTION) == expected


def test_r1_opens_the_thinking():
    """Facts of the published string: its length without the question, how it begins and ends, its tags."""
    text = prompt_style("r1")(QUESTION)
    assert text.startswith("A conversation between User and Assistant. The User asks a question, and the Assistant")
    assert text.endswith(f"</answer>.\nUser: {QUESTION}\nAssistant: <think>")
    assert text.count("<think>") == 3
    assert text.count("<answer>") == 2
    assert len(text) - len(QUESTION) == 439


def test_one_s_own_text_keeps_its_other_braces():
    assert prompt_style(r"Put it in \boxed{}. {question} A:")(QUESTION) == rf"Put it in \boxed{{}}. {QUESTION} A:"


def test_a_misspelt_style_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'qwen_math'"):
        prompt_style("qwen_maht")
    assert set(STYLES) == {"plain", "none", "vineppo", "qwen_math", "r1"}
