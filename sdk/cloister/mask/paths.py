"""Paths into JSON documents: RFC 6901 pointers and a subset of JSONPath (RFC 9535), compiled.

Of JSONPath: names, indexes from 0, `*` and `..`; no filters, slices or unions. All paths of a mask
become one automaton, so a document is walked once, and only where a path can still match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

from cloister.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["State", "compile_paths", "pointer"]

V = TypeVar("V")

_MAX_PATHS: Final = 256
_MAX_STEPS: Final = 32
_MAX_STATES: Final = 4096  # `..` multiplies states
_NAME: Final = r"[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff]*"
_SEGMENT: Final = re.compile(
    rf"(?P<dots>\.\.?)(?:(?P<name>{_NAME})|(?P<star>\*))"
    r"|(?P<descend>\.\.)?\[(?:(?P<index>0|[1-9][0-9]{0,8})|(?P<all>\*)"
    r"|'(?P<single>[^'\\]*)'|\"(?P<double>[^\"\\]*)\")\]"
)
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")


class _Step(NamedTuple):
    key: str | None  # None is any
    descend: bool


_Item: TypeAlias = tuple[int, int]  # path, steps already matched


@dataclass(slots=True, eq=False)
class State(Generic[V]):
    """What is left to match at one place of a document.

    Attributes:
        view: The verdict of a path that ends here, a mask's view say; the chosen one of several.
        named: Where a member of this name (or an element of this index) leads.
        other: Where any other leads. None is a place below which nothing can match.
    """

    view: V | None = None
    named: dict[str, State[V] | None] = field(default_factory=dict)
    other: State[V] | None = None

    def below(self, key: str) -> State[V] | None:
        """Where a member or element leads."""
        return self.named.get(key, self.other)

    def leads_into(self, steps: Sequence[str]) -> bool:
        """Whether a path goes on below the place that `steps` lead to."""
        state: State[V] | None = self
        for step in steps:
            state = None if state is None else state.below(step)
        return state is not None and (bool(state.named) or state.other is not None)


def compile_paths(views: Mapping[str, V], *, choose: Callable[[Sequence[V]], V]) -> State[V] | None:
    """Compile `views` by path to the state at the root of a document; None if there are none.

    Args:
        views: A verdict of any kind by path.
        choose: Decides where several paths end at one place.

    Raises:
        ConfigurationError: A path cannot be read, or there are too many.
    """
    if len(views) > _MAX_PATHS:
        raise ConfigurationError(f"a mask has at most {_MAX_PATHS} paths")
    paths = [_parse(path) for path in views]
    if any(len(path) > _MAX_STEPS for path in paths):
        raise ConfigurationError(f"a path has at most {_MAX_STEPS} steps")
    verdicts = list(views.values())
    start = frozenset((place, 0) for place in range(len(paths)))
    states: dict[frozenset[_Item], State[V]] = {start: State()}
    todo = [start]

    def state(items: frozenset[_Item]) -> State[V] | None:
        if not items:
            return None
        if items not in states:
            if len(states) >= _MAX_STATES:
                raise ConfigurationError("the paths are too many in combination", hint="use fewer `..` steps")
            states[items] = State()
            todo.append(items)
        return states[items]

    while todo:
        items = todo.pop()
        node = states[items]
        ended = [verdicts[path] for path, done in sorted(items) if done == len(paths[path])]
        node.view = choose(ended) if ended else None
        steps = [(path, done, paths[path][done]) for path, done in items if done < len(paths[path])]

        def after(key: str | None, steps: list[tuple[int, int, _Step]] = steps) -> frozenset[_Item]:
            stay = {(path, done) for path, done, step in steps if step.descend}
            return frozenset(
                stay | {(path, done + 1) for path, done, step in steps if step.key is None or step.key == key}
            )

        node.other = state(after(None))
        for key in {step.key for _, _, step in steps if step.key is not None}:
            node.named[key] = state(after(key))
    return states[start] if start else None


def pointer(path: str) -> tuple[str, ...]:
    """The steps of a path that leads to one place.

    Raises:
        ConfigurationError: The path cannot be read, or may lead to several places.
    """
    keys = [step.key for step in _parse(path) if not step.descend]
    if None in keys or len(keys) != len(_parse(path)):
        raise ConfigurationError("the path must lead to one place", hint="write it without * and ..")
    return tuple(key for key in keys if key is not None)


def _parse(path: str) -> tuple[_Step, ...]:
    if not path or path.startswith("/"):
        return _parse_pointer(path)
    steps: list[_Step] = []
    end = 1
    for match in _SEGMENT.finditer(path, 1):
        if match.start() != end:
            break
        end = match.end()
        found = match.groupdict()
        descend = found["dots"] == ".." or found["descend"] is not None
        names = (found[group] for group in ("name", "index", "single", "double"))
        key = next((name for name in names if name is not None), None)
        steps.append(_Step(key, descend))
    if not path.startswith("$") or end != len(path):
        raise ConfigurationError(
            "a path cannot be read",
            hint="use an RFC 6901 pointer like /customer/ssn, or JSONPath like $.cards[*].pan or $..ssn",
        )
    return tuple(steps)


def _parse_pointer(path: str) -> tuple[_Step, ...]:
    if _BAD_ESCAPE.search(path):
        raise ConfigurationError("a JSON pointer escapes ~ as ~0 and / as ~1 (RFC 6901, section 3)")
    keys = (key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:])
    return tuple(_Step(key, descend=False) for key in keys)
