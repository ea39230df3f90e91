r"""The grader `paper`: the rules by which the numbers of VinePPO, and so of LILO, were graded.

Kazemnejad et al. 2024 (VinePPO) take the rules of Minerva (Lewkowycz et al. 2022) as DeepSeekMath (Shao et al. 2024)
wrote them; Foster et al. 2025 (LILO) change nothing.  On GSM8K the answer is what follows the last ####, and is
compared as a string.  Both are looser and stricter than mathematics: see docs/grading.md.

Deviation: expressions are compared by their values (`lilo_jax.grading.probing`), not by sympy's `parse_expr`, which
evaluates text as Python, after pylatexenc has made text of LaTeX.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence

from lilo_jax.grading.judgement import NO_ANSWER, Judgement
from lilo_jax.grading.probing import close
from lilo_jax.questions import Question, Verdict

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
    (r"infinity|(?<!\\)\binf\b", r"\\infty"),
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
_KNOWN = re.compile(r"\\?(sqrt|frac|pi|inf(ty)?|cos|sin|tan|cot|log|ln|exp)")
_REFUSED = re.compile(r"\^\{?[0-9]+\}?\^|\^\{?-?[0-9]{2,}|(?<![0-9])[0-9]{3,}!|\^\(|arc")
"""What the source does not try: towers, large powers and factorials; of arccos it leaves three unknown letters."""
_NO_EXPRESSION = re.compile(
    r"[,<>=|]|\\[{}]|\\(?:pm|mp|leq?|geq?|lt|gt|neq?|in|cup|cap|infty|begin)(?![a-zA-Z])"
    r"|\\(?:sin|cos|tan|cot|sec|csc|ln|log|exp)[a-zA-Z\d_]|\d_"  # a command and the letter behind it became one word
)
_MIXED = re.compile(r"(\d)\s*(?=\\frac\{\d+\}\{\d+\})")
_TEXT = re.compile(r"\\(?:text|textbf|mathbf|mathrm|mbox|fbox|operatorname)\{([^{}]*)\}")


@dataclasses.dataclass(frozen=True)
class Paper:
    """Rules of the MATH family, or of GSM8K where the gold answer is a solution that ends with ####."""

    def quick(self, question: Question, response: str) -> Judgement | None:
        """All there is: nothing takes long."""
        return self.judge(question, response)

    def judge(self, question: Question, response: str) -> Judgement:
        """The same."""
        solved = "boxed" in question.solution or "####" in question.solution
        gold = question.solution if solved else question.answer
        return _gsm8k(gold, response) if "####" in gold else _minerva(gold, question.text, response)

    def __call__(self, question: Question, response: str) -> Verdict:
        """The verdict."""
        return self.judge(question, response).verdict


def _minerva(gold: str, question: str, response: str) -> Judgement:
    rule, found = _answers(response, question)
    if not found:
        return NO_ANSWER
    _, wanted = _answers(gold, question) if "boxed" in gold else ("", _parts(gold, question))
    wanted = list(dict.fromkeys(wanted))
    found = list(dict.fromkeys(found))[-len(wanted) :]  # of several boxes the last ones
    same = bool(wanted) and _same_lists(wanted, found)
    reason = f"{found} {'matches' if same else 'does not match'} {wanted}"[:LONGEST]
    return Judgement(Verdict.CORRECT if same else Verdict.WRONG, ", ".join(found)[:LONGEST], rule, reason)


def _gsm8k(gold: str, response: str) -> Judgement:
    if "####" not in response:
        return NO_ANSWER
    wanted, found = gold.split("####")[1].strip(), response.rpartition("####")[2].strip()
    same = wanted.lower() == found.replace(",", "").lower()  # commas of the gold answer stay, as they did there
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
def _same_lists(wanted: list[str], found: list[str]) -> bool:
    """Each matches one of the others."""
    table = [[_same(one, other) for other in found] for one in wanted]
    return all(any(line) for line in (*table, *zip(*table, strict=True)))


def _same(gold: str, answer: str) -> bool:
    if r"\cup" in gold and r"\cup" in answer:
        return _same_lists(gold.split(r"\cup"), answer.split(r"\cup"))
    return (bool(gold) and gold == answer) or _equal(gold, answer)


def _equal(gold: str, answer: str) -> bool:
    if gold == answer:
        return True
    wanted, found = _number(gold), _number(answer)
    if wanted is not None and found is not None:
        return any(math.isclose(one, found, abs_tol=TOLERANCE) for one in (wanted, wanted / 100, wanted * 100))
    if not answer:
        return False
    for parts in (_tuple_parts, _matrix_parts):
        ours, theirs = parts(gold), parts(answer)
        if ours and theirs and [len(row) for row in ours] == [len(row) for row in theirs]:
            entries = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
            if all(_equal(one, other) for one, other in entries):
                return True
    sides, others = gold.split("="), answer.split("=")
    if len(sides) == len(others) == 2:
        difference, other = f"{sides[0]}-({sides[1]})", f"{others[0]}-({others[1]})"
        return _algebra(difference, other) or _algebra(difference, f"-({other})")
    if len(others) == 2 and len(sides) == 1 and len(others[0]) <= 2:
        return _equal(gold, others[1])
    if len(sides) == 2 and len(others) == 1 and len(sides[0]) <= 2:
        return _equal(sides[1], answer)
    return _algebra(gold, answer)


def _number(text: str) -> float | None:
    text = text.replace(",", "")
    percent = text.endswith("%")
    try:
        return float(text.rstrip("%").rstrip("\\")) / (100 if percent else 1)
    except ValueError:
        return None


def _tuple_parts(text: str) -> list[list[str]] | None:
    """What stands between the first character and the last one; behind the closing bracket anything may follow."""
    return [text[1:-1].split(",")] if re.match(r"[(\[].+[)\]]", text) else None


def _matrix_parts(text: str) -> list[list[str]] | None:
    found = re.fullmatch(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", text)
    return [row.split("&") for row in found[1].split(r"\\") if row.strip()] if found else None


def _algebra(gold: str, answer: str) -> bool:
    """Whether two expressions are equal, or as numbers within the tolerance; what the source cannot read is not."""
    both = [_expression(gold), _expression(answer)]
    if None in both:
        return False
    return both[0] == both[1] or close(*both, tolerance=TOLERANCE)  # type: ignore[arg-type]


def _expression(text: str) -> str | None:
    """The expression that the source would see: what follows a percent sign is a comment to it."""
    text = _TEXT.sub(r"\1", text.partition("%")[0].replace("π", r"\pi ").replace("×", r"\times "))
    text = _MIXED.sub(r"\1+", text)  # a mixed number is a sum, even behind a minus
    while text.endswith("}") and text.count("}") > text.count("{"):
        text = text[:-1]
    letters = set(re.findall(r"\\[a-zA-Z]+|[^\W\d_]", _KNOWN.sub(" ", text.replace(r"\times", " "))))
    unread = not text.strip() or len(text) > LONGEST or _REFUSED.search(text) or _NO_EXPRESSION.search(text)
    return None if unread or len(letters) > MOST_UNKNOWNS else text
