"""Functions that Kubernetes adds to CEL, as far as they are supported; a method `x.f(y)` is the function `f(x, y)`."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from holdfast_local.apiserver.kinds.quantities import parse_quantity


def _quantity(text: str) -> float:
    # Doubles are exact up to 2^53, far beyond any size that is compared here.
    return float(parse_quantity(text))


def _is_quantity(text: Any) -> bool:
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def _index_of(container: Any, wanted: Any, start: int = 0) -> int:
    if isinstance(container, str):
        return container.find(wanted, start)
    return container.index(wanted) if wanted in container else -1


def _last_index_of(container: Any, wanted: Any) -> int:
    if isinstance(container, str):
        return container.rfind(wanted)
    positions = [index for index, entry in enumerate(container) if entry == wanted]
    return positions[-1] if positions else -1


def _substring(text: str, start: int, end: int | None = None) -> str:
    return text[start:end]


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if separator == "":
        return list(text)
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _join(parts: Sequence[str], separator: str = "") -> str:
    return separator.join(parts)


def _is_sorted(values: Sequence[Any]) -> bool:
    return all(left <= right for left, right in itertools.pairwise(values))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantity": _quantity,
    "isQuantity": _is_quantity,
    "isGreaterThan": lambda left, right: left > right,
    "isLessThan": lambda left, right: left < right,
    "compareTo": lambda left, right: (left > right) - (left < right),
    "asApproximateFloat": lambda value: float(value),
    "asInteger": lambda value: int(value),
    "sign": lambda value: (value > 0) - (value < 0),
    "split": _split,
    "join": _join,
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "substring": _substring,
    "charAt": lambda text, index: text[index : index + 1],
    "isSorted": _is_sorted,
    "sum": lambda values: sum(values),
}
