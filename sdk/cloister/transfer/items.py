"""What is transferred: lines of a file, or objects under a prefix of a bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import rfc8785

from cloister.envelope import Sealed
from cloister.errors import CloisterError, ConfigurationError

__all__ = ["Fields", "Item", "Items", "RecordItems", "StoredItems", "Unusable", "ValueStore"]

MAX_LINE_BYTES: Final = 8 * 1024 * 1024
MAX_ID_CHARS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One value to transfer.

    Attributes:
        place: Where it stands, for people: a line's number, or an object's name.
        id: What names it over all runs.
        digest: Of its content, so that another content under the same id is noticed.
        inputs: What the function is called with.
        context: Values of context names that its manifest asks for.
    """

    place: str
    id: str
    digest: str
    inputs: Mapping[str, Any] = field(repr=False)
    context: Mapping[str, str] | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """What stands where an item should be."""

    place: str
    reason: str


class Items(Protocol):
    """Port: the items of a source, the same ones each time it is read."""

    def __iter__(self) -> Iterator[Item | Unusable]:
        """Read them from the start."""
        ...

    def count(self) -> int | None:
        """How many there are, if that is cheap to tell."""
        ...


class ValueStore(Protocol):
    """Port: a bucket with one sealed value an object."""

    def names(self, prefix: str) -> Iterator[str]:
        """Names of the objects under a prefix, in a fixed order."""
        ...

    def get(self, name: str) -> Sealed:
        """The sealed value of one object.

        Raises:
            CloisterError: There is none, or it holds something else.
        """
        ...

    def put_new(self, name: str, sealed: Sealed) -> bool:
        """Write a value if there is no object of that name; False if there is one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Which members of a record go where.

    Attributes:
        inputs: Member by name of the function's input.
        context: Member by context name.
        id: Member that names the item; without one, its whole content does.
    """

    inputs: Mapping[str, str]
    context: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    def item(self, record: Any, place: str) -> Item | Unusable:
        """Make an item of a record."""
        if not isinstance(record, dict):
            return Unusable(place=place, reason="it is no JSON object")
        needed = {*self.inputs.values(), *self.context.values(), *([self.id] if self.id else [])}
        if missing := sorted(needed - record.keys()):
            return Unusable(place=place, reason=f"it has no member {missing[0]!r}")
        context = {name: record[member] for name, member in self.context.items()}
        if not all(isinstance(value, str) for value in context.values()):
            return Unusable(place=place, reason="a value of the context is no text")
        inputs = {name: record[member] for name, member in self.inputs.items()}
        try:
            digest = _digest([inputs, context])
        except ValueError:
            return Unusable(place=place, reason="it has a value that JSON cannot carry exactly")
        id_ = digest if self.id is None else record[self.id]
        if not isinstance(id_, str | int) or isinstance(id_, bool) or not 0 < len(str(id_)) <= MAX_ID_CHARS:
            return Unusable(place=place, reason="what should name it is no text and no whole number")
        return Item(place=place, id=str(id_), digest=digest, inputs=inputs, context=context or None)


class RecordItems:
    """A file with one JSON object a line.

    Args:
        path: The file; it is read twice, and must not change meanwhile.
        fields: Which members go where.

    Raises:
        ConfigurationError: The file cannot be read.
    """

    def __init__(self, path: Path, fields: Fields) -> None:
        self._path = path
        self._fields = fields
        self.count()

    def __iter__(self) -> Iterator[Item | Unusable]:
        """Each line that is not empty."""
        with self._path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    yield Unusable(place=str(number), reason="the line is too long")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                elif line.strip():
                    yield self._item(line, str(number))

    def count(self) -> int:
        """How many lines are not empty."""
        try:
            with self._path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be read ({type(error).__name__})") from None

    def _item(self, line: bytes, place: str) -> Item | Unusable:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return Unusable(place=place, reason="it is no JSON")
        return self._fields.item(record, place)


class StoredItems:
    """Objects under a prefix, each a sealed value.

    A record is made of each: `value` is the sealed value, `name` the object's name behind the prefix.
    """

    def __init__(self, store: ValueStore, prefix: str, fields: Fields) -> None:
        self._store = store
        self._prefix = prefix
        self._fields = fields

    def __iter__(self) -> Iterator[Item | Unusable]:
        """Each object."""
        for name in self._store.names(self._prefix):
            shown = name.removeprefix(self._prefix)
            try:
                value = str(self._store.get(name))
            except CloisterError as error:
                yield Unusable(place=shown, reason=str(error.args[0]))
            else:
                yield self._fields.item({"name": shown, "value": value}, shown)

    def count(self) -> None:
        """Not told: a bucket says it only by listing all of it."""
        return


def _digest(value: Any) -> str:
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
