"""The colours of a page and of its figures, on light and on dark screens."""

from collections.abc import Mapping

LIGHT = {
    "surface": "#ffffff",
    "band": "#f5f7fa",
    "ink": "#1c2330",
    "muted": "#5a6473",
    "grid": "#e4e7ec",
    "line": "#7b8594",
    "focus": "#1257b0",
    "right": "#17693f",
    "wrong": "#a32c22",
    "arm-0": "#667080",
    "arm-1": "#1f6fd0",
    "arm-2": "#d9600f",
    "arm-3": "#178a68",
    "arm-4": "#7d4cc4",
    "arm-5": "#b83270",
    "arm-6": "#8a6d00",
}
DARK = {
    "surface": "#14181f",
    "band": "#1b2029",
    "ink": "#e5e9f0",
    "muted": "#a3adbb",
    "grid": "#2b323d",
    "line": "#7e8898",
    "focus": "#8cc2ff",
    "right": "#58c48d",
    "wrong": "#ef7d72",
    "arm-0": "#a4aebc",
    "arm-1": "#62a8f5",
    "arm-2": "#f3924e",
    "arm-3": "#45c29c",
    "arm-4": "#b493f2",
    "arm-5": "#ea7aae",
    "arm-6": "#d8b741",
}
"""Backgrounds are `surface` and `band`; text is `ink`, `muted`, `right` and `wrong`; `line` edges controls."""


def css(theme: Mapping[str, str]) -> str:
    """Declarations of CSS variables."""
    return " ".join(f"--{name}: {value};" for name, value in theme.items())


def variables() -> str:
    """CSS that gives every colour its value on either kind of screen."""
    return f":root {{ {css(LIGHT)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {css(DARK)} }} }}\n"
