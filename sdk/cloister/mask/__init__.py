"""Show each reader of a JSON document only what it may see.

    mask = Mask({"/ssn": MASKED("***-**-{last:4}"), "$.cards[*].pan": REDACTED}, default=PLAIN)
    mask.apply(document)

A name and an index that are spelled alike are the same step, so a mask never shows more than either
reading of its paths would.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, cast

from cloister.errors import ConfigurationError, LimitError
from cloister.mask.paths import State, compile_paths
from cloister.mask.views import DENIED, MASKED, PLAIN, REDACTED, REDACTED_TEXT, View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    JSON: TypeAlias = dict[str, "JSON"] | list["JSON"] | str | int | float | bool | None

__all__ = ["DENIED", "MASKED", "PLAIN", "REDACTED", "Mask", "View"]

_MAX_DEPTH: Final = 100


class _Absent:
    """What a denied value becomes."""


_ABSENT: Final = _Absent()


class Mask:
    """Views by path, compiled once and applied to any number of documents.

    A path's view holds for everything below it. Under a plain path, deeper paths still hold; under
    any other, nothing is shown. Where several paths meet, the strictest view wins. A path that a
    document does not have is no error, so `default=DENIED` is the choice that survives a
    misspelling: it lets out only what is named.

    Denied members disappear, denied elements become null. A pattern masks strings and numbers; an
    object, an array or a boolean under it is redacted, and null stays null.

    Args:
        views: RFC 6901 pointers or JSONPath (names, indexes, `*`, `..`) to views.
        default: The view of everything no path names.

    Raises:
        ConfigurationError: A path cannot be read.
    """

    __slots__ = ("_default", "_start")

    def __init__(self, views: Mapping[str, View], *, default: View) -> None:
        self._start = compile_paths(views, choose=_strictest)
        self._default = default

    def apply(self, document: JSON) -> JSON:
        """Return the document as it may be seen. The argument stays as it is; what did not change is shared.

        Raises:
            LimitError: The document is nested deeper than 100.
        """
        shown = _walk(document, self._start, self._default, 0)
        return None if isinstance(shown, _Absent) else shown

    def leads_into(self, steps: Sequence[str]) -> bool:
        """Whether a path goes on below the place that `steps` lead to."""
        return self._start is not None and self._start.leads_into(steps)

    def apply_text(self, text: str | bytes) -> str:
        """Like `apply`, from JSON text to JSON text.

        Raises:
            ConfigurationError: The text is not JSON.
            LimitError: The document is nested deeper than 100.
        """
        try:
            return _encode(self.apply(_decode(text if isinstance(text, str) else text.decode())))
        except ValueError:
            raise ConfigurationError("the document is not JSON") from None
        except RecursionError:
            raise _too_deep() from None


def _strictest(views: Sequence[View]) -> View:
    return max(views, key=lambda view: view.strictness)


def _walk(node: JSON, state: State[View] | None, view: View, depth: int) -> JSON | _Absent:
    if state is None:
        return node if view.show == "plain" else _show(node, view)
    if state.view is not None:
        view = state.view
        if view.show != "plain":
            return _show(node, view)
    if depth > _MAX_DEPTH:
        raise _too_deep()
    if isinstance(node, dict):
        return _walk_object(node, state, view, depth)
    if isinstance(node, list):
        named, other = state.named, state.other
        shown = [
            _walk(child, named.get(str(place), other), view, depth + 1) for place, child in enumerate(node)
        ]
        return [None if isinstance(child, _Absent) else child for child in shown]
    return node if view.show == "plain" else _show(node, view)


def _walk_object(node: dict[str, JSON], state: State[View], view: View, depth: int) -> JSON:
    named, other = state.named, state.other
    if other is None and view.show == "plain":
        # Only the named members can change: the rest is copied in one stroke.
        out = node.copy()
        for key, below in named.items():
            if key in node:
                shown = _walk(node[key], below, view, depth + 1)
                if isinstance(shown, _Absent):
                    del out[key]
                else:
                    out[key] = shown
        return out
    out = {}
    for key, child in node.items():
        shown = _walk(child, named.get(key, other), view, depth + 1)
        if not isinstance(shown, _Absent):
            out[key] = shown
    return out


def _show(node: JSON, view: View) -> JSON | _Absent:
    """Apply a view that is not plain to all of a node."""
    if view.show == "masked":
        if node is None:
            return None
        if not isinstance(node, (str, int, float)) or isinstance(node, bool):
            return REDACTED_TEXT
        return view.apply(node if isinstance(node, str) else str(node))
    return REDACTED_TEXT if view.show == "redacted" else _ABSENT


def _too_deep() -> LimitError:
    return LimitError(f"the document is nested deeper than {_MAX_DEPTH}")


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError  # NaN and the infinities are not JSON


def _decode(text: str) -> JSON:
    return cast("JSON", _DECODER.decode(text))


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_encode: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
