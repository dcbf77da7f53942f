"""Seal chosen fields of a JSON document, by compiled paths. There is no counterpart that opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from cloister.envelope import Sealed, Value
from cloister.errors import ConfigurationError, LimitError, OpenError
from cloister.mask.paths import State, compile_paths, pointer
from cloister.names import check_name

__all__ = ["FieldSealer", "OnMissing", "Sealer"]

OnMissing = Literal["refuse", "ignore"]
MAX_DEPTH: Final = 100


class Sealer(Protocol):
    """Port: whoever seals many values; `cloister.Client` is one."""

    def seal_many(
        self,
        values: Sequence[Value],
        *,
        key: str,
        contexts: Sequence[Mapping[str, str] | None] | None = None,
    ) -> list[Sealed]:
        """Seal values, one context a value."""
        ...


class _Verdict(NamedTuple):
    key: str
    paths: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in the copy of a document that a sealed value goes to."""

    container: Any
    place: Any
    key: str


class _Walk:
    """One walk over a document: copies along the paths, and every place that one of them ends at."""

    def __init__(self) -> None:
        self.slots: list[_Slot] = []
        self.found: set[str] = set()

    def collect(self, container: Any, place: Any, state: State[_Verdict] | None, *, depth: int) -> None:
        if state is None:
            return
        if depth > MAX_DEPTH:
            raise LimitError(f"the document is nested deeper than {MAX_DEPTH}")
        node = container[place]
        if state.view is not None:
            self.found |= state.view.paths
            if not _is_sealed(node, state.view.key):
                self.slots.append(_Slot(container, place, state.view.key))
        elif isinstance(node, Mapping):
            copy = container[place] = dict(node)
            for key in copy.keys() if state.other is not None else copy.keys() & state.named.keys():
                self.collect(copy, key, state.below(key), depth=depth + 1)
        elif isinstance(node, list):
            copied = container[place] = list(node)
            for index in range(len(copied)):
                self.collect(copied, index, state.below(str(index)), depth=depth + 1)


class FieldSealer:
    """Which fields are sealed under which key, compiled once.

    Args:
        keys: Name of a tenant's key by path: RFC 6901 pointers or JSONPath (names, indexes, `*`, `..`).
        context: What the values are bound to: for each context name, the path of one text or whole
            number in the same document.
        on_missing: What to do when a path finds nothing. "refuse" is the choice that survives a
            misspelling: no plaintext passes because its path was wrong.

    Raises:
        ConfigurationError: A path or a key's name cannot be read.
    """

    __slots__ = ("_context", "_on_missing", "_paths", "_start")

    def __init__(
        self, keys: Mapping[str, str], *, context: Mapping[str, str] | None = None, on_missing: OnMissing
    ) -> None:
        for key in keys.values():
            check_name(key, "key")
        self._paths = frozenset(keys)
        self._start = compile_paths(
            {path: _Verdict(key, frozenset({path})) for path, key in keys.items()}, choose=_one_key
        )
        self._context = None if context is None else {name: pointer(path) for name, path in context.items()}
        self._on_missing = on_missing

    def leads_into(self, steps: Sequence[str]) -> bool:
        """Whether a path goes on below the place that `steps` lead to."""
        return self._start is not None and self._start.leads_into(steps)

    def apply(self, document: Any, client: Sealer) -> Any:
        """Return a copy with the fields sealed; what did not change is shared, the argument stays as it is.

        Values that already are sealed under the right key stay.

        Raises:
            ConfigurationError: A path found nothing, or the context is not there.
            LimitError: The document is nested deeper than 100.
        """
        root = [document]
        walk = _Walk()
        walk.collect(root, 0, self._start, depth=0)
        if self._on_missing == "refuse" and (missing := sorted(self._paths - walk.found)):
            raise ConfigurationError(
                f"there is nothing to seal at {', '.join(missing)}",
                hint='check the path; where the field may be absent, say on_missing="ignore"',
            )
        if walk.slots:
            context = self._bound(document)
            for key in sorted({slot.key for slot in walk.slots}):
                mine = [slot for slot in walk.slots if slot.key == key]
                values = [slot.container[slot.place] for slot in mine]
                contexts = None if context is None else [context] * len(mine)
                sealed = client.seal_many(values, key=key, contexts=contexts)
                for slot, value in zip(mine, sealed, strict=True):
                    slot.container[slot.place] = value
        return root[0]

    def _bound(self, document: Any) -> dict[str, str] | None:
        if self._context is None:
            return None
        return {name: _text(document, steps, name) for name, steps in self._context.items()}


def _one_key(verdicts: Sequence[_Verdict]) -> _Verdict:
    if len({verdict.key for verdict in verdicts}) > 1:
        raise ConfigurationError("two paths with different keys lead to one place")
    return _Verdict(verdicts[0].key, frozenset().union(*(verdict.paths for verdict in verdicts)))


def _is_sealed(node: Any, key: str) -> bool:
    if not isinstance(node, str):
        return False
    try:
        return Sealed(node).kid.rpartition(".")[0] == key
    except OpenError:
        return False


def _text(document: Any, steps: Sequence[str], name: str) -> str:
    for step in steps:
        if isinstance(document, list) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            document = document.get(step) if isinstance(document, dict) else None
    if isinstance(document, int) and not isinstance(document, bool):
        return str(document)
    if isinstance(document, str) and document:
        return document
    raise ConfigurationError(
        f"the context {name!r} is not in the document", hint="it must be a text or a whole number"
    )
