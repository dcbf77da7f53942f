"""What a platform sees of a decorated handler."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from cloister.errors import ConfigurationError

__all__ = ["hide_parameter"]


def hide_parameter(handler: Callable[..., Any], wrapper: Callable[..., Any], name: str) -> None:
    """Make `wrapper` look like `handler` without the keyword-only parameter `name`.

    Platforms read signatures and annotations to decide what they pass; what we inject is not theirs.

    Raises:
        ConfigurationError: The handler has no such parameter.
    """
    signature = inspect.signature(handler)
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.kind is not parameter.KEYWORD_ONLY:
        raise ConfigurationError(
            f"the handler takes no keyword-only parameter {name!r}", hint=f"add `*, {name}` to its parameters"
        )
    functools.update_wrapper(wrapper, handler)
    # Whoever follows `__wrapped__` would find the hidden parameter again.
    del wrapper.__wrapped__  # type: ignore[attr-defined]
    wrapper.__annotations__ = {key: hint for key, hint in handler.__annotations__.items() if key != name}
    visible = [p for p in signature.parameters.values() if p.name != name]
    wrapper.__signature__ = signature.replace(parameters=visible)  # type: ignore[attr-defined]
