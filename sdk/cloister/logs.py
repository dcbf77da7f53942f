"""Log records with fields, in the keys of Powertools for AWS Lambda, on every cloud.

The adapters log to `cloister.aws`, `cloister.gcp` and `cloister.azure`, and put what varies into fields
of the record (`extra`). Powertools' own `Logger` writes such fields as keys of its JSON; elsewhere
`JsonFormatter` does. No field is ever a payload, a credential or a message of somebody's exception.

Source: https://docs.aws.amazon.com/powertools/python/latest/core/logger/#standard-structured-keys
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cloister.errors import CloisterError

__all__ = ["JsonFormatter", "error_fields"]

_SERVICE: Final = ("POWERTOOLS_SERVICE_NAME", "K_SERVICE", "WEBSITE_SITE_NAME", "AWS_LAMBDA_FUNCTION_NAME")
_FUNCTION: Final = ("AWS_LAMBDA_FUNCTION_NAME", "FUNCTION_TARGET", "K_SERVICE", "WEBSITE_SITE_NAME")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: `level`, `location`, `message`, `timestamp`, `service`, and its fields.

    A traceback is told as the type of its exception alone: its message and its source lines may be data.

    Args:
        service: By default as the platform names it.
    """

    def __init__(self, *, service: str | None = None) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        document: dict[str, Any] = {
            "level": record.levelname,
            "location": f"{record.funcName}:{record.lineno}",
            "message": record.getMessage(),
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "service": self._service or _named(_SERVICE) or "service_undefined",
            "logger": record.name,
        }
        function = _named(_FUNCTION)
        if function:
            document["function_name"] = function
        if record.exc_info and record.exc_info[0] is not None:
            document["exception_name"] = record.exc_info[0].__name__
        document |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return json.dumps(document, default=lambda value: type(value).__name__, ensure_ascii=False)


def error_fields(error: BaseException) -> Mapping[str, Any]:
    """Fields that tell of an error without data: its code, and what to find it by in the host's log."""
    if not isinstance(error, CloisterError):
        return {"error_code": type(error).__name__}
    fields: dict[str, Any] = {"error_code": error.code, "retryable": error.retryable}
    if error.correlation_id:
        fields["correlation_id"] = error.correlation_id
    return fields


def _named(variables: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in variables if os.environ.get(name)), "")
