"""What a compiled program sends between devices, read from its text.

XLA's own counts take the body of a loop once.  Here it counts as often as the loop runs, where the compiler knows that;
a loop of unknown length, such as that of decoding, is reported by itself, per turn.  A collective among one device,
which a mesh axis of size 1 leaves behind, sends nothing and is not counted.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
    "u64": 8, "f64": 8,
}  # fmt: skip
_SHAPE = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_KNOWN_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_ALONE = re.compile(r"replica_groups=(?:\{\{\d+\}|\[\d+,1\])")
_AXIS_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_AXIS = re.compile(r"('\w+')=(\d+)")
REDUCERS = ("reduce", "sort", "scatter", "map", "reduce-window", "select-and-scatter")
"""Operations that call scalar functions."""


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str


class _Traffic(NamedTuple):
    """What collectives move.

    Attributes:
        loop: name of a loop of unknown length, of one turn of which this is; empty for the rest of the program.
        calls: collectives by kind.
        size: bytes of their results by kind; of several arrays in one collective, all.
    """

    loop: str
    calls: dict[str, int]
    size: dict[str, int]

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return sum(self.size.values())


def size_of(shape: str) -> int:
    """Bytes of all arrays in a shape."""
    total = 0
    for dtype, dimensions in _SHAPE.findall(shape):
        count = BYTES[dtype]
        for length in filter(None, dimensions.split(",")):
            count *= int(length)
        total += count
    return total


def traffic(text: str) -> list[_Traffic]:
    """What a program moves: first all that runs a known number of times, then each loop of unknown length."""
    program = _computations(text)
    loops: dict[str, _Traffic] = {}

    def walk(name: str, channels: set[str]) -> _Traffic:
        """Of one turn of a computation; what overlaps with others stands in several fusions, under one channel."""
        found = _Traffic("", {}, {})
        for instruction in program.get(name, []):
            kind = _kind(program, instruction)
            if kind:
                channel = _CHANNEL.search(instruction.rest)
                if (own := channel[1] if channel else instruction.name) not in channels:
                    channels.add(own)
                    _add(found, kind, 1, _moved(instruction, kind), 1)
            elif instruction.operation == "while":
                inner, turns = walk(_attribute(instruction, "body"), set()), _turns(program, instruction)
                if turns is not None:
                    _merge(found, inner, turns)
                elif inner.calls:
                    loops[instruction.name] = inner._replace(loop=instruction.name)
            elif instruction.operation not in REDUCERS:
                for callee in _callees(program, instruction):
                    _merge(found, walk(callee, channels), 1)
        return found

    whole = walk("", set())
    return [whole, *loops.values()]


def restored(records: Iterable[Mapping[str, Any]]) -> tuple[_Traffic, ...]:
    """Of records that `_asdict` made."""
    return tuple(_Traffic(**record) for record in records)


def largest(text: str, most: int = 5) -> list[tuple[int, str, str]]:
    """The largest arrays that a program makes: bytes, shape and operation, the largest first."""
    sizes: dict[tuple[str, str], int] = {}
    passed = ("parameter", "tuple", "get-tuple-element", "while", "bitcast", "conditional")
    for name, body in _computations(text).items():
        if name.startswith(("fused", "wrapped")):
            continue
        for instruction in body:
            shape = _SHAPE.search(instruction.shape)
            if shape and instruction.operation not in passed:
                sizes[shape[0], instruction.operation] = size_of(shape[0])
    ranked = sorted(((size, *key) for key, size in sizes.items()), reverse=True)
    return ranked[:most]


def _computations(text: str) -> dict[str, list[_Instruction]]:
    """Name to instructions; the entry is under the empty name too."""
    found: dict[str, list[_Instruction]] = {}
    body: list[_Instruction] = []
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            body = found.setdefault(head[2], [])
            if head[1]:
                found[""] = body
        elif match := _INSTRUCTION.match(line):
            body.append(_Instruction(*match.groups()))
    return found


def _moved(instruction: _Instruction, kind: str) -> int:
    """Bytes of what a collective makes; a started one names its operands beside its results."""
    total = size_of(instruction.shape)
    if not instruction.operation.endswith("-start") or not instruction.shape.startswith("("):
        return total
    arrays = [size_of(found[0]) for found in _SHAPE.finditer(instruction.shape)]
    return max(arrays) if kind != "all-reduce" else total


def _kind(program: dict[str, list[_Instruction]], instruction: _Instruction) -> str:
    """The collective that an instruction is; empty if it is none."""
    kind = instruction.operation.removesuffix("-start")
    if kind in KINDS:
        return "" if _is_alone(instruction) else kind
    fused = instruction.operation == "fusion" and next(_callees(program, instruction), "")
    return "reduce-scatter" if fused and "reduce-scatter" in fused else ""


def _is_alone(collective: _Instruction) -> bool:
    """Whether each of its groups is one device; they are written one by one, as a table, or as axes of a mesh."""
    if not (named := _AXIS_GROUPS.search(collective.rest)):
        return _ALONE.search(collective.rest) is not None
    sizes = dict(_AXIS.findall(named[1]))
    return all(sizes.get(axis.strip()) == "1" for axis in named[2].split(","))


def _callees(program: dict[str, list[_Instruction]], instruction: _Instruction) -> Iterator[str]:
    names = _CALLED.findall(instruction.rest)
    for group in _BRANCHES.findall(instruction.rest):
        names += [name.strip().lstrip("%") for name in group.split(",")]
    yield from (name for name in names if name in program)


def _attribute(instruction: _Instruction, name: str) -> str:
    found = re.search(rf"{name}=%?([\w.\-]+)", instruction.rest)
    return found[1] if found else ""


def _turns(program: dict[str, list[_Instruction]], loop: _Instruction) -> int | None:
    """How often a loop runs: as the compiler says, or the constant that its condition compares a counter with."""
    if known := _KNOWN_TRIPS.search(loop.rest):
        return int(known[1])
    condition = program.get(_attribute(loop, "condition"), [])
    bounds = [i for i in condition if i.operation == "constant" and i.shape.startswith("s32[]")]
    compares = [i for i in condition if i.operation in ("compare", "fusion", "and", "or")]
    simple = len(bounds) == 1 and len(compares) == 1 and len(condition) <= 5
    return int(bounds[0].rest.split(")")[0]) if simple else None


def _add(found: _Traffic, kind: str, count: int, size: int, times: int) -> None:
    found.calls[kind] = found.calls.get(kind, 0) + count * times
    found.size[kind] = found.size.get(kind, 0) + size * times


def _merge(found: _Traffic, inner: _Traffic, times: int) -> None:
    for kind, count in inner.calls.items():
        _add(found, kind, count, inner.size[kind], times)
