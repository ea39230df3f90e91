"""Prompt styles: from the text of a question to the text that a model continues.

A checkpoint expects the style that it was trained with.  The strings are data, to be matched character for character.
"""

from collections.abc import Callable

from lilo_jax.errors import UsageError, unknown_name
from lilo_jax.storage.paths import AnyPath


def plain(question: str) -> str:
    """The question on a line of its own."""
    return f"{question}\n"


def none(question: str) -> str:
    """The question itself."""
    return question


def vineppo(question: str) -> str:
    """The style of the Rho and DeepSeekMath checkpoints of Kazemnejad et al. 2024 (VinePPO), zero-shot."""
    return f"[MATH_TASK] Problem:\n{question}\n\nSolution:"


def qwen_math(question: str) -> str:
    """ChatML with Qwen 2.5 Math's system prompt; Liu et al. 2025 (Understanding R1-Zero-Like Training), table 1."""
    return (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


def r1(question: str) -> str:
    """Thinking and answer in tags, for base models; DeepSeek-AI 2025 (R1), table 1, as used by Liu et al. 2025."""
    return (
        "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The "
        "Assistant first thinks about the reasoning process in the mind and then provides the User with the answer. "
        "The reasoning process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\n"
        f"User: {question}\nAssistant: <think>"
    )


STYLES: dict[str, Callable[[str], str]] = {
    "plain": plain,
    "none": none,
    "vineppo": vineppo,
    "qwen_math": qwen_math,
    "r1": r1,
}


def template_of(file: AnyPath) -> str:
    """A prompt style of one's own from a file, without the newline that ends its last line.

    Raises:
        UsageError: the file cannot be read, or has no place for the question.
    """
    try:
        text = file.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"no template can be read from {file}: {error}") from None
    if "{question}" not in text:
        raise UsageError(f"{file} has no {{question}} in it: write that where the question goes")
    return text


def prompt_style(name: str) -> Callable[[str], str]:
    """The style of that name, or one's own: a text with {question} in it, whose other braces mean nothing.

    Raises:
        UsageError: it is neither.
    """
    if "{question}" in name:
        return lambda question: name.replace("{question}", question)
    if name not in STYLES:
        raise unknown_name("prompt style (or text with {question})", name, STYLES)
    return STYLES[name]
