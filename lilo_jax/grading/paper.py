r"""The grader `paper`: the rules by which the numbers of VinePPO, and so of LILO, were graded.

Kazemnejad et al. 2024 (VinePPO) take the rules of Minerva (Lewkowycz et al. 2022) as DeepSeekMath (Shao et al. 2024)
wrote them; Foster et al. 2025 (LILO) change nothing.  On GSM8K the answer is what follows the last ####, and is
compared as a string.  Both are looser and stricter than mathematics: see docs/grading.md.

Deviation: expressions are parsed by `math-verify`, not by sympy's `parse_expr`, which evaluates text as Python.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from lilo_jax.grading.judgement import NO_ANSWER, Judgement
from lilo_jax.grading.symbolic import close
from lilo_jax.types import Question, Verdict

Equal = Callable[[str, str], bool | None]
TOLERANCE = 1e-3
MOST_UNKNOWNS = 2
"""Letters, beyond those of known functions, of an expression that is compared by algebra."""
LONGEST = 2000

_REWRITES: Sequence[tuple[str, str]] = [
    (r"\n", ""),
    (r"\.+$", ""),
    (r"\\!", ""),
    (r"^\\text\{(.*)\}$", r"\1"),
    (r"[tdc]frac", "frac"),
    (r"\\left|\\right", ""),
    (r"(?<=.)\\text\{.*?\}$", ""),
    (r"\^\{\\circ\}|\^\\circ", ""),
    (r"\{[cm]?m\}(\^[23])?", ""),
    (r"p\.m\.$", ""),
    (r"(\d)\s*t$", r"\1"),
    (r"\\?\$", ""),
    (r"x\\in", ""),
    (r"\\%", "%"),
    (r"([ {])\.", r"\g<1>0."),
    (r"\\cdot", ""),
    (r"infinity", r"\\infty"),
    (r"\\mathbf|\\mathrm", ""),
    (r"\\mbox\{.*?\}", ""),
    (r"(\d+)\.0+(?=\D|$)", r"\1"),
    (r"^\.", "0."),
    (r"\\(sqrt|tan)(-?[0-9.a-zA-Z]+)", r"\\\1{\2}"),
    (r"\\(sqrt|tan)\s+(\w+)$", r"\\\1{\2}"),
    (r" ", ""),
    (r"\\frac([^{])([^{])", r"\\frac{\1}{\2}"),
    (r"\\frac([^{])\{", r"\\frac{\1}{"),
    (r"^(-?\d+|[^/]*sqrt[^/]*)/(-?\d+|[^/]*sqrt[^/]*)$", r"\\frac{\1}{\2}"),
    (r"(\\|,|\.)+$", ""),
]
_TABLE = [(re.compile(pattern), replacement) for pattern, replacement in _REWRITES]
_LAST_NUMBER = re.compile(r"-?\d*\.?\d+")
_KNOWN = re.compile(r"\\?(sqrt|frac|pi|inf(ty)?|arc(cos|sin|tan|cot)|cos|sin|tan|cot|log|ln|exp)")
_REFUSED = re.compile(r"\^\{?[0-9]+\}?\^|\^\{?-?[0-9]{2,}|[0-9]{3,}!")


@dataclasses.dataclass(frozen=True)
class Paper:
    """Rules of the MATH family, or of GSM8K where the gold answer is a solution that ends with ####."""

    def quick(self, question: Question, response: str) -> Judgement | None:
        """All but algebra."""
        return _judge(question, response, lambda gold, answer: None)

    def judge(self, question: Question, response: str) -> Judgement:
        """With algebra."""
        found = _judge(question, response, lambda gold, answer: close(gold, answer, tolerance=TOLERANCE))
        assert found is not None
        return found

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict."""
        return (self.quick(question, response) or self.judge(question, response)).verdict


def _judge(question: Question, response: str, algebra: Equal) -> Judgement | None:
    gold = question.solution or question.answer
    if "####" in gold:
        return _gsm8k(gold, response)
    rule, found = _answers(response, question.text)
    if not found:
        return NO_ANSWER
    _, wanted = _answers(gold, question.text) if "boxed" in gold else ("", _parts(gold, question.text))
    wanted = list(dict.fromkeys(wanted))
    found = list(dict.fromkeys(found))[-len(wanted) :]  # of several boxes the last ones
    same = _same_lists(wanted, found, algebra)
    if same is None:
        return None
    shown = ", ".join(found)[:LONGEST]
    reason = f"{found} {'matches' if same else 'does not match'} {wanted}"[:LONGEST]
    return Judgement(Verdict.CORRECT if same else Verdict.WRONG, shown, rule, reason)


def _gsm8k(gold: str, response: str) -> Judgement:
    if "####" not in response:
        return NO_ANSWER
    wanted, found = gold.rpartition("####")[2].strip(), response.rpartition("####")[2].strip()
    same = wanted.casefold() == found.replace(",", "").casefold()  # commas of the gold answer stay, as they did there
    reason = f"{found!r} without its commas is {'' if same else 'not '}{wanted!r}"
    return Judgement(Verdict.CORRECT if same else Verdict.WRONG, found[:LONGEST], "hashes", reason[:LONGEST])


# ------------------------------------------------------------------------------------------------------ extraction
def _answers(text: str, question: str) -> tuple[str, list[str]]:
    """Name of the rule, and all answers that it finds, rewritten."""
    rule, found = _extract(text)
    return rule, [part for one in found for part in _parts(_first_line(one), question)]


def _extract(text: str) -> tuple[str, list[str]]:
    if "final answer is $" in text and "$. I hope" in text:
        return "minerva", [text.split("final answer is $", 1)[1].split("$. I hope", 1)[0]]
    if "boxed" in text:
        return "boxed", _boxes(text)
    if "he answer is" in text:
        return "phrase", [text.rpartition("he answer is")[2]]
    if output := text.rpartition("```output")[2].partition("```")[0].strip() if "```output" in text else "":
        return "output", [output]
    numbers = _LAST_NUMBER.findall(text.replace(",", "")[-20_000:])
    return "last", numbers[-1:]


def _boxes(text: str) -> list[str]:
    """The contents of every box that is closed, a percent sign behind it instead of its last brace."""
    found = []
    for piece in text.split("boxed{")[1:]:
        depth = 1
        for i, character in enumerate(piece[:LONGEST]):
            depth += (character == "{") - (character == "}")
            if not depth:
                found.append(piece[: i + 1] if piece[i + 1 : i + 2] == "%" else piece[:i])
                break
    return found


def _first_line(answer: str) -> str:
    return answer.strip().split("\n")[0].lstrip(":").rstrip(".").rstrip("/")


def _parts(answer: str, question: str) -> list[str]:
    """An answer rewritten; several of them if the question asks for a list, or "and" joins them."""
    answer = rewritten(answer)
    if "separated by commas" in question and not set(answer) & set("()[]"):
        return [part.strip() for part in answer.split(",")]
    return [part.strip() for part in re.split(r"\\text\{\s*and\s*\}", answer)]


def rewritten(answer: str) -> str:
    """An answer in the one spelling in which these rules compare."""
    answer = str(answer).strip()
    if len(answer) > LONGEST:
        return answer
    for pattern, replacement in _TABLE:
        answer = pattern.sub(replacement, answer).strip()
    return answer.replace("j", "i") if "j" in answer and "i" not in answer else answer


# ------------------------------------------------------------------------------------------------------ comparison
def _same_lists(wanted: list[str], found: list[str], algebra: Equal) -> bool | None:
    table = [[_same(one, other, algebra) for other in found] for one in wanted]
    return _all([_any(line) for line in (*table, *zip(*table, strict=True))])


def _all(values: Sequence[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _any(values: Sequence[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def _same(gold: str, answer: str, algebra: Equal) -> bool | None:
    if r"\cup" in gold and r"\cup" in answer:
        return _same_lists(gold.split(r"\cup"), answer.split(r"\cup"), algebra)
    return True if gold and gold == answer else _equal(gold, answer, algebra)


def _equal(gold: str, answer: str, algebra: Equal) -> bool | None:
    if gold == answer:
        return True
    numbers = _number(gold), _number(answer)
    if None not in numbers:
        return any(abs(numbers[0] * scale - numbers[1]) < TOLERANCE for scale in (1, 0.01, 100))  # type: ignore
    if not answer:
        return False
    for parts in (_tuple_parts, _matrix_parts):
        ours, theirs = parts(gold), parts(answer)
        if ours and theirs and [len(row) for row in ours] == [len(row) for row in theirs]:
            entries = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
            same = _all([_equal(one, other, algebra) for one, other in entries])
            if same is not False:
                return same
    sides, others = gold.split("="), answer.split("=")
    if len(sides) == len(others) == 2:
        ours, theirs = f"{sides[0]}-({sides[1]})", f"{others[0]}-({others[1]})"  # type: ignore[assignment]
        return _any([_algebra(ours, theirs, algebra), _algebra(ours, f"-({theirs})", algebra)])  # type: ignore
    if len(others) == 2 and len(sides) == 1 and len(others[0]) <= 2:
        return _equal(gold, others[1], algebra)
    if len(sides) == 2 and len(others) == 1 and len(sides[0]) <= 2:
        return _equal(sides[1], answer, algebra)
    return _algebra(gold, answer, algebra)


def _number(text: str) -> float | None:
    text = text.replace(",", "")
    percent = text.endswith("%")
    try:
        return float(text.rstrip("%").rstrip("\\")) / (100 if percent else 1)
    except ValueError:
        return None


def _tuple_parts(text: str) -> list[list[str]] | None:
    return [text[1:-1].split(",")] if re.fullmatch(r"[(\[].+[)\]]", text) else None


def _matrix_parts(text: str) -> list[list[str]] | None:
    found = re.fullmatch(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", text)
    return [row.split("&") for row in found[1].split(r"\\") if row.strip()] if found else None


def _algebra(gold: str, answer: str, algebra: Equal) -> bool | None:
    for one in (gold, answer):
        if _REFUSED.search(one) or len({c for c in _KNOWN.sub("", one) if c.isalpha()}) > MOST_UNKNOWNS:
            return False
    return algebra(gold, answer)
