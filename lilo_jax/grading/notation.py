r"""One way to write an answer: LaTeX and Unicode spellings of the same thing become the same string.

Only the spelling changes, never the value.  In the result spaces separate words and numbers, fractions are
\frac{a}{b}, roots \sqrt{a}, comparison signs \le \ge < >, degrees \degree, currencies and units words.
"""

import re
import unicodedata
from collections.abc import Callable

from lilo_jax.grading.units import spelt_out

LONGEST = 2000
"""Characters of an answer that is normalised; longer ones are only compared as they stand."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿⁱˣᵏᵐ", "0123456789-+nixkm")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "÷": "/",
    "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"\degree ",
    "º": r"\degree ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ",
    "φ": r"\phi ", "ω": r"\omega ", "ℝ": r"\mathbb{R}", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ",
    "\u2009": " ", "\u202f": " ", "\u2061": "", "€": r" \euro ", "£": r" \pound ", "¥": r" \yen ",
}  # fmt: skip
_COMMANDS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|nolimits|mathstrut)(?![A-Za-z])\.?"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d{3})|,\s*\\!\s*(?=\d{3})"), ","),
    (re.compile(r"\\[!]|\\color\s*\{\w+\}"), ""),
    (re.compile(r"(?<!\\)\{\s+"), "{"),
    (re.compile(r"\s+(?<!\\)\}"), "}"),
    (re.compile(r"(?<=\d)\\[,;:](?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\[,;:> ]|~|\\(?:q?quad|thinspace|enspace)(?![A-Za-z])"), " "),
    (re.compile(r"\\[dtc](frac|binom)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\\$"), r" \\dollar "),
    (re.compile(r"\\%|%|\bper\s?cent\b"), r" \\percent "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])|\\textdegree|\bdegrees?\b"), r" \\degree "),
    (re.compile(r"\\degree\s+([CF])\b"), lambda m: " celsius " if m[1] == "C" else " fahrenheit "),
    (re.compile(r"\\(?:leq?slant|leqq?|le)(?![A-Za-z])|<=|=<"), r"\\le "),
    (re.compile(r"\\(?:geq?slant|geqq?|ge)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\neq?(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:lbrace|rbrace)(?![A-Za-z])"), lambda m: r"\{" if m[0] == r"\lbrace" else r"\}"),
    (re.compile(r"\\(?:lbrack|rbrack)(?![A-Za-z])"), lambda m: "[" if m[0] == r"\lbrack" else "]"),
    (re.compile(r"\\(?:l|r)?[vV]ert(?![A-Za-z])|\\mid(?![A-Za-z])"), "|"),
    (re.compile(r"\\(?:varnothing|emptyset|O)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\+?\s*\\infty(?![A-Za-z])|\+?\s*\b(?:infinity|inf)\b"), r"\\infty "),
    (re.compile(r"\\(?:mathbb|mathbf)\s*\{\s*R\s*\}|\\mathbb\s+R"), r"\\reals "),
    (re.compile(r"\\(?:varphi)(?![A-Za-z])"), r"\\phi "),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<!\\)\bsqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|ln|lg|log|arcsin|arccos|arctan)(?![a-z])"), r"\\\1 "),
    (re.compile(r"\\lg(?![A-Za-z_])|\\operatorname\{\\?lg *\}"), r"\\log_{10} "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=[\w)}])\s*\*\s*(?=[\w({\\])"), r"\\cdot "),
    (re.compile(r"(?<=\d)[ ](?=\d{3}(?:[ ]\d{3})*(?![\d/.]))"), ","),
]
_REPEATING = re.compile(
    r"(?<![\d.])(\d+(?:,\d{3})*)?\.(\d*)"
    r"(?:\\(?:overline|bar)\s*\{(\d+)\}|\\(?:overline|bar)\s*(\d)|(?<=\.)\((\d+)\)"
    r"|(\\dot\s*(?:\{\d\}|\d)(?:\d*\\dot\s*(?:\{\d\}|\d))?)|((?:\d[\u0305\u0307])+))(?![\d.])"
)
"""A decimal whose digits under a line, between dots or, right behind the point, in brackets repeat for ever."""
_DOLLAR = re.compile(r"(?<!\\)\$")
_QUOTED = re.compile(r"^(?:([\"'])((?:(?!\1).)+)\1|``([^`']+)'')$", re.DOTALL)
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathbf|mathit|mbox|operatorname\*?|emph|f?boxed|fbox|mathsf)\s*\{"
)
_SHORT_FRACTION = re.compile(r"\\frac\s*(\d|[a-zA-Z]|\{[^{}]*\})\s*(\d|[a-zA-Z]|\{[^{}]*\})")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\d+(?:\.\d+)?|[a-zA-Z])(?![\w}])|\\sqrt\s*(\d|[a-zA-Z])")
_SIMPLE_FRACTION = re.compile(r"(?<![\w.}\\)^])(\d+|[a-z])\s*/\s*(\d+)(?![\w.])")


def normalise(text: str) -> str:
    """The one spelling; a text longer than `LONGEST` is returned stripped."""
    text = text.strip()
    if len(text) > LONGEST:
        return text
    text = _REPEATING.sub(_as_fraction, text) if "." in text else text
    text = _unicode(text)
    text = _without_delimiters(text)
    for pattern, replacement in _COMMANDS:
        text = pattern.sub(replacement, text)
    text = _unwrapped(text)
    text = _SHORT_FRACTION.sub(lambda m: rf"\frac{{{m[1].strip('{}')}}}{{{m[2].strip('{}')}}}", text)
    text = _SHORT_ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = _SIMPLE_FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = re.sub(r"\^\{(\w)\}(?!\d)", r"^\1", text)
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    text = re.sub(r"(?<![\w)}])([-+])\s+(?=[\d\\.(a-zA-Z])", r"\1", text)
    text = " ".join(text.split())
    return _stripped(text)


def compact(text: str) -> str:
    """A normalised expression without the spaces that mean nothing: those between words and numbers stay."""
    out, before = [], ""
    for found in re.finditer(r"(\s*)(\\[A-Za-z]+|\\.|\S)", text):
        token = found[2]
        command = len(before) > 1 and before[-1].isalpha() and token[0].isalpha()
        numbers = bool(found[1]) and before.isdigit() and token.isdigit()
        out.append(f" {token}" if command or numbers else token)
        before = token
    return "".join(out)


def _as_fraction(repeating: re.Match[str]) -> str:
    """A repeating decimal is the fraction that it stands for."""
    whole, fixed, *period = (re.sub(r"\D", "", group or "") for group in repeating.groups())
    digits = "".join(period)
    places = 10 ** len(fixed)
    numerator = int(f"{whole}{fixed}{digits}") - int(f"{whole}{fixed}" or 0)
    return rf"\frac{{{numerator}}}{{{places * (10 ** len(digits) - 1)}}}"


def _unicode(text: str) -> str:
    text = re.sub(r"[₀-₉]+", lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿⁱˣᵏᵐ]+", lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    text = re.sub(r"(\d)([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])", r"\1 \2", text)
    text = re.sub(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z])", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = "".join(_UNICODE.get(c, c) for c in text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(_UNICODE.get(c, c) for c in text)


def _without_delimiters(text: str) -> str:
    r"""Without $...$, \(...\), \[...\] and markdown emphasis; a single $, or one before every number, is a currency."""
    if "$" in text:
        currency = len(_DOLLAR.findall(text)) == 1 or not re.search(r"(?<!\\)\$(?![-.\d])", text)
        text = _DOLLAR.sub(r"\\$" if currency else "", text)
    text = re.sub(r"(?<!\\)\\[()\[\]]", "", text)
    return re.sub(r"^\*\*(.*)\*\*$|^`(.*)`$", lambda m: m[1] or m[2] or "", text.strip())


def _unwrapped(text: str) -> str:
    r"""With the contents of \text{...} and its like as plain words."""
    for _ in range(20):
        wrapped = list(_WRAPPED.finditer(text))
        if not wrapped:
            return text
        start = wrapped[-1]  # the innermost of nested ones
        depth, end = 1, start.end()
        while end < len(text) and depth:
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        inside = spelt_out(text[start.end() : end - 1 if not depth else end])
        text = f"{text[: start.start()]} {inside} {text[end:]}"
    return text


def _stripped(text: str) -> str:
    """Without punctuation around, and without braces around the whole."""
    while True:
        before = text
        text = text.strip().rstrip(".,;:").strip().lstrip(":,;#=").strip()
        if text.startswith("{") and text.endswith("}") and "," not in text and text.count("{") == text.count("}") == 1:
            text = text[1:-1]
        text = _QUOTED.sub(r"\2\3", text) if text[:1] in "\"'`" else text
        if text == before:
            return text
