"""Both ends of the versions: what setup.py asks for is what Colab has or adds to it, and few tests touch every room."""

import ast
import pathlib
import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
LISTED = (ROOT / "tests" / "versions.txt").read_text(encoding="utf-8").split()
ADDED = {"chex", "jaxtyping", "math-verify", "pebble", "tyro"}
"""What installing brings to Colab, beside what these need themselves."""


def required():
    """The packages that setup.py needs always, and for figures."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    plot = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "PLOT")
    call = tree.body[-1].value
    (always,) = [keyword.value for keyword in call.keywords if keyword.arg == "install_requires"]
    return [Requirement(text) for text in ast.literal_eval(always) + ast.literal_eval(plot)]


def test_colab_has_what_is_required_or_nothing_of_it():
    """`.ci/versions` installs in earnest; this tells at once which floor is too high."""
    lines = (ROOT / "constraints" / "colab.txt").read_text(encoding="utf-8").splitlines()
    colab = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert (colab["jax"], colab["flax"]) == ("0.7.2", "0.11.2")
    missing = {canonicalize_name(need.name) for need in required()} - set(colab)
    assert missing == ADDED
    for need in required():
        if need.name not in missing:
            assert need.specifier.contains(colab[canonicalize_name(need.name)]), need


def test_the_tests_of_both_ends_touch_every_room():
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in LISTED)
    touched = set(re.findall(r"lilo_jax(?:\.| import )(\w+)", text))
    rooms = {path.parent.name for path in (ROOT / "lilo_jax").glob("*/__init__.py")}
    assert rooms <= touched, rooms - touched


def test_the_tests_of_both_ends_need_no_other_library():
    """Beside what tests always need: their environments have no torch."""
    for name in LISTED:
        assert not re.search(
            r"^(?:import|from) (?:torch|transformers|rlax|trl)|pretrained_models",
            (ROOT / name).read_text("utf-8"),
            re.M,
        ), name
