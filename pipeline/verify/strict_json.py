"""JSON as a sceptic reads it: no NaN, no doubled key, no deep nesting, every value of its type.

Notable: two parsers that disagree on a doubled key would let a certificate say two things. Python's
`json` also takes NaN and Infinity; here both are refused, and so is 1e999 (which becomes infinite).
"""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from typing import Any, NoReturn

from pipeline.verify.refusal import Refusal, quote, require

SHA256 = re.compile(r"[0-9a-f]{64}")
FRACTION = r"[0-9]{1,20}/[0-9]{1,20}"
DECIMAL = r"([0-9]{1,20}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?"
EPSILON = re.compile(f"{FRACTION}|{DECIMAL}")


def parse(content: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `content`.

    Raises:
        Refusal: not UTF-8 JSON, not an object at the top, a doubled key, NaN or Infinity.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            require(key not in found, f"{source} has the key {quote(key)} twice")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        raise Refusal(f"{source} has the number {name}, which is not JSON")

    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant
        )
    except RecursionError:
        raise Refusal(f"{source} is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError and integers of over 4300 digits
        raise Refusal(f"{source} is not JSON: {quote(error)}") from None
    require(isinstance(value, dict), f"{source} is not a JSON object")
    return value


class Record:
    """A JSON object whose values are asked for by key and type; `where` names it in messages."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def value(self, key: str) -> Any:
        """Whatever stands under `key`."""
        require(key in self.values, f"{self.where} has no {quote(key)}")
        return self.values[key]

    def text(self, key: str) -> str:
        """A non-empty string."""
        value = self.value(key)
        self._require(isinstance(value, str) and value != "", key, "a string")
        return value

    def digest(self, key: str) -> str:
        """A sha256 in lower-case hexadecimal."""
        value = self.text(key)
        self._require(SHA256.fullmatch(value) is not None, key, "a sha256")
        return value

    def count(self, key: str, least: int = 0, most: int = 10**9) -> int:
        """An integer in [least, most]; true is not 1."""
        return self._integer(self.value(key), key, least, most)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.value(key)
        self._require(_is_number(value), key, "a finite number")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.value(key)
        self._require(isinstance(value, bool), key, "true or false")
        return bool(value)

    def record(self, key: str) -> Record:
        """An object."""
        value = self.value(key)
        self._require(isinstance(value, dict), key, "an object")
        return Record(value, f"{self.where}: {key}")

    def items(self, key: str) -> list[Any]:
        """A list."""
        value = self.value(key)
        self._require(isinstance(value, list), key, "a list")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        values = self.items(key)
        self._require(all(isinstance(value, str) for value in values), key, "a list of strings")
        return values

    def integers(self, key: str, least: int, most: int) -> list[int]:
        """A list of integers from `least` to `most`."""
        return [self._integer(item, key, least, most) for item in self.items(key)]

    def shape(self, key: str, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """A list of positive integers, as many as one of `lengths`."""
        values = self.items(key)
        self._require(len(values) in lengths, key, "a shape")
        return tuple(self._integer(value, key, 1, 10**8) for value in values)

    def pair(self, key: str, least: int, most: int) -> tuple[int, int]:
        """An integer for both axes, or a list of two."""
        value = self.value(key)
        values = value if isinstance(value, list) else [value, value]
        self._require(len(values) == 2, key, "an integer or a pair")
        first, second = (self._integer(item, key, least, most) for item in values)
        return first, second

    def only(self, keys: set[str]) -> None:
        """Refuse any key that is not among `keys`: what is not understood is not checked."""
        for key in self.values:
            require(key in keys, f"{self.where} has the unknown key {quote(key)}")

    def _integer(self, value: object, key: str, least: int, most: int) -> int:
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        self._require(good, key, f"an integer from {least} to {most}")
        assert isinstance(value, int)
        return value

    def _require(self, condition: bool, key: str, kind: str) -> None:
        require(condition, f"{self.where}: {quote(key)} is not {kind}")


def parse_epsilon(text: str) -> Fraction:
    """An ε as written, "36/255" or "0.25", as an exact fraction greater than 0."""
    require(EPSILON.fullmatch(text) is not None, f"epsilon {quote(text)} is not a number")
    try:
        value = Fraction(text)
    except ZeroDivisionError:
        raise Refusal(f"epsilon {quote(text)} divides by zero") from None
    require(value > 0, f"epsilon {quote(text)} is not greater than 0")
    return value


def numbers(value: object, count: int) -> list[float] | None:
    """A list of so many finite numbers; None if it is anything else."""
    if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
        return None
    return [float(each) for each in value]


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
