"""Where the graders disagree on the golden corpus: the table of docs/grading.md, and every case.

    python -m benchmarks.grader_disagreements           # prints the table and the cases
    python -m benchmarks.grader_disagreements --write   # puts the table into docs/grading.md, between its two marks

The verdicts are those that the tests expect (`tests/golden/*.jsonl`), so that nothing is graded here.
"""

import argparse
import collections
import pathlib
from collections.abc import Iterator
from typing import Any

from lilo_jax.processes.endings import exit_with_message
from lilo_jax.storage.json_lines import read_records

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
DOCUMENT = ROOT / "docs" / "grading.md"
BEGIN, END = "<!-- disagreements: begin -->", "<!-- disagreements: end -->"
OTHERS = ("exact", "paper", "math_verify")
SHORT = {"correct": "yes", "wrong": "no", "no_answer": "none", "timeout": "timeout", "error": "error"}
SHOWN = 60
"""Characters of a gold answer or of the end of a response that are shown."""

REASONS: dict[str, dict[str, str]] = {
    "answer_phrase": {
        "paper": 'it knows "he answer is" only, and takes everything behind it; for "answer:" it takes the last number',
        "math_verify": "it looks for mathematics near the words and misses sets, pairs and mixed numbers in prose",
    },
    "choices": {
        "paper": "a letter alone is no answer to its last-number rule, and a box must hold just the letter",
        "math_verify": "letters are read as variables, or not at all",
    },
    "code": {
        "paper": "the last number within the code counts",
        "math_verify": "a number within the code, or all of it as a product of letters, counts",
    },
    "complex_numbers": {
        "exact": "equal only after algebra",
        "paper": "both signs of plus-minus are one string to it",
        "math_verify": "i is a letter like any other",
    },
    "currency": {
        "paper": "only dollar signs go away, other currencies stay; 1250 is within its factor of 100 of 12.50",
        "math_verify": "a gold with a currency sign is not parsed",
    },
    "degrees": {"paper": "only the LaTeX sign of degrees goes away, not the word or the Unicode sign"},
    "empty": {
        "paper": "an empty box is an answer, a wrong one",
        "math_verify": "behind an empty box it looks for a number elsewhere",
    },
    "equations": {
        "exact": "equal only after algebra",
        "paper": "left sides longer than two characters stay; those of two equations are not compared",
    },
    "fractions": {
        "exact": "equal only after algebra",
        "paper": "the last number of a/b is b; numbers within 0.001 are equal",
        "math_verify": "a decimal of six equal digits is equal",
    },
    "hashes": {
        "paper": "#### counts only where the gold solution has one; else the rules of MATH look for other marks",
        "math_verify": "it does not know ####, and takes what looks like an answer",
    },
    "hostile": {
        "exact": "what only algebra would try, and would not come back from, is just not equal",
        "paper": "it finds no number, or an empty one, in what it does not know",
        "math_verify": "it tries to compute the answer until its process is ended; a long decimal is rounded",
    },
    "inequalities": {
        "paper": "inequalities are compared as strings",
        "math_verify": "the last number counts, and chains turned round or joined by or are different sets",
    },
    "intervals": {
        "paper": "brackets are cut off unread, and inequalities are strings",
        "math_verify": "an interval never equals an inequality",
    },
    "labels": {
        "paper": "a letter or a word alone is no answer to it; of words around a number the last number counts",
        "math_verify": "of words around a value the last number counts, and in a box they are letters",
    },
    "last_number": {
        "paper": "the last number of a fraction or a percentage is a part of it",
        "math_verify": "a product equals its value",
    },
    "lines": {
        "exact": "equal only after algebra",
        "paper": "an equation equals another one that it can compare side by side",
        "math_verify": "equations are solved, and so is the question itself; a list of lines is not",
    },
    "logarithms_exponentials": {
        "exact": "equal only after algebra",
        "paper": "large powers and commands joined to the next letter are refused; numbers within 0.001 are equal",
    },
    "look_alikes": {
        "exact": "equal only after algebra",
        "paper": "names on the left, brackets, units and words are read as above",
        "math_verify": "letters are taken for units, capitals for small letters; left sides and primes are ignored",
    },
    "matrices": {"exact": "equal only after algebra", "paper": "arrays are not read as matrices"},
    "mixed_numbers": {
        "paper": "of 7 1/3 it makes 71/3; a product of a number and a fraction is a mixed number to it",
        "math_verify": "7 1/3 in plain text is a product, or its last part",
    },
    "multiple_boxes": {
        "paper": "of several boxes as many are compared as the gold has; an empty one is wrong",
        "math_verify": "all boxes together are the answer, or none of an empty one",
    },
    "nested_boxes": {
        "exact": "equal only after algebra",
        "paper": "every box counts, the last ones most; fbox is not known, and large powers are refused",
        "math_verify": "the inner box counts alone",
    },
    "notation": {
        "exact": "equal only after algebra",
        "paper": "choose, lg, inequalities and units with powers are strings",
        "math_verify": "units are removed unread, lg and what is excluded are not read",
    },
    "percent": {
        "paper": "a number equals its hundredth and its hundredfold; other spellings of a percentage are strings",
        "math_verify": "a percentage equals its number with and without the sign; the question is not read",
    },
    "plus_minus": {
        "exact": "equal only after algebra",
        "paper": "plus-minus is one string, lists are compared only where the question asks for commas",
        "math_verify": "the sign in front of a term, or the Unicode one, is not read; one of two values is taken",
    },
    "polynomials": {
        "exact": "equal only after algebra",
        "paper": "powers of two digits are refused, and of prose the last number counts",
        "math_verify": "letters behind a number are taken for a unit; expressions without a dollar sign are not found",
    },
    "radicals": {
        "exact": "equal only after algebra",
        "paper": "numbers within 0.001 are equal; a unit behind a root stays",
        "math_verify": "a decimal of six equal digits is equal",
    },
    "refusal": {"paper": "text is compared with its capitals"},
    "repeating_decimals": {
        "exact": "equal only after algebra",
        "paper": "a line or a dot over digits is not read, and numbers within 0.001 are equal",
        "math_verify": "a line or a dot over digits is not read; a decimal of many equal digits is equal",
    },
    "scientific": {
        "paper": "e is not read in a power of ten, 10^5 is not computed, spaces and {,} stay",
        "math_verify": "1e5 is the product of 1, Euler's number and 5; thousands separated by spaces are products",
    },
    "sets": {
        "exact": "equal only after algebra",
        "paper": "sets and lists are compared as strings, except where the question asks for commas",
        "math_verify": "a pair equals a set; of a list in prose one item counts",
    },
    "text": {
        "paper": "text is compared with its capitals and articles, and only in a box or behind the phrase",
        "math_verify": "words are products of letters, or not found",
    },
    "thinking": {
        "paper": "what is thought counts as what is said",
        "math_verify": "what is thought counts as what is said",
    },
    "thousands": {
        "exact": "equal only after algebra",
        "paper": "{,} and spaces stay in the string",
        "math_verify": "thousands separated by spaces are products",
    },
    "times": {
        "exact": "ratios are equal only after algebra",
        "paper": "times are strings, of which the last number counts in prose",
        "math_verify": "times are ratios or numbers, and a.m. is dropped or read as letters",
    },
    "tiny_values": {
        "exact": "equal only after algebra",
        "paper": "large powers are refused",
        "math_verify": "a difference is rounded to 12 decimals",
    },
    "trigonometry": {
        "exact": "equal only after algebra",
        "paper": "a command joined to the next letter is refused, and so are inverse functions",
        "math_verify": "the sign of degrees is dropped within a function",
    },
    "tuples": {
        "exact": "equal only after algebra",
        "paper": "brackets are cut off unread; of a pair in prose the last number counts",
        "math_verify": "a pair equals a set and a list; of a pair in prose one item counts",
    },
    "unevaluated": {
        "exact": "equal only after algebra",
        "paper": "in a box a sum equals its value; bare equations are strings",
        "math_verify": "a sum equals its value, and so does an echo of the question",
    },
    "unicode": {
        "exact": "equal only after algebra",
        "paper": "Unicode signs stay in the string",
        "math_verify": "Unicode signs are not read, or only the part before them",
    },
    "units": {
        "paper": "units are removed where they are \\text at the end, and else stay in the string",
        "math_verify": "units are removed unread, different ones too",
    },
    "worked_equations": {
        "paper": "an equation is compared as a string, and of prose the last number counts",
        "math_verify": "the last side counts whether the equation holds or not, also of an equation with letters",
    },
}
"""Why a grader differs from `default`, by category of the corpus."""


def disagreements() -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Rows by category on which some grader differs from `default`, with their line numbers."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = collections.defaultdict(list)
    for file in sorted(GOLDEN.glob("*.jsonl")):
        for number, row in read_records(file):
            if any(row[name] != row["default"] for name in OTHERS):
                found[file.stem].append((number, row))
    return found


def table() -> Iterator[str]:
    """How often and why each grader differs from `default`, by category, as markdown."""
    cases = sum(sum(1 for _ in read_records(file)) for file in GOLDEN.glob("*.jsonl"))
    found = disagreements()
    counts = {name: sum(_differing(rows, name) for rows in found.values()) for name in OTHERS}
    yield f"Of {cases} cases, verdicts differ from `default`'s on " + ", ".join(
        f"{count} (`{name}`)" for name, count in counts.items()
    )
    yield "\n| category | " + " | ".join(f"`{name}`" for name in OTHERS) + " |"
    yield "|---|" + "---|" * len(OTHERS)
    for category, rows in found.items():
        cells = (f"{count}: {REASONS[category][name]}" if (count := _differing(rows, name)) else "" for name in OTHERS)
        yield f"| {category} | " + " | ".join(cells) + " |"


def cases() -> Iterator[str]:
    """Every case on which a grader differs, as markdown."""
    for category, rows in disagreements().items():
        yield f"\n**{category}**"
        yield "\n| line | gold | the response ends | " + " | ".join(["default", *OTHERS]) + " |"
        yield "|---|---|---|" + "---|" * (1 + len(OTHERS))
        for number, row in rows:
            verdicts = " | ".join(SHORT[row[name]] for name in ("default", *OTHERS))
            yield f"| {number} | {_code(row['gold'])} | {_code(row['response'])} | {verdicts} |"


def _differing(rows: list[tuple[int, dict[str, Any]]], name: str) -> int:
    return sum(row[name] != row["default"] for _, row in rows)


def _code(text: str) -> str:
    """The end of a text as inline code."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    text = text if len(text) <= SHOWN else "…" + text[-SHOWN:]
    return f"`` {text} ``".replace("|", "\\|") if text else ""


def main() -> None:
    """Prints table and cases, or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print("\n".join([*table(), *cases()]))
        return
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text("\n".join([f"{before}{BEGIN}", *table(), f"{END}{after}"]), encoding="utf-8")


if __name__ == "__main__":
    exit_with_message(main)
