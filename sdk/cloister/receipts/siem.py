"""Exports for SIEMs, in OCSF and CEF, which still verify by themselves.

Every event carries its line of the export. Encoding is a function of that line alone, so whoever verifies
encodes it again and compares: a field that a SIEM shows cannot say something else than what is proven.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from cloister.errors import LogError
from cloister.jose.strict_json import load_object
from cloister.receipts.export import MAX_LINE_BYTES

__all__ = ["Format", "decode_line", "encode_line", "format_of"]

Format = Literal["jsonl", "ocsf", "cef"]

OCSF_VERSION: Final = "1.3.0"
_SUCCESS, _FAILURE, _OTHER = 1, 2, 99
_STATUS: Final = {"done": _SUCCESS, "refused": _FAILURE, "failed": _FAILURE}
_SEVERITY: Final = {"refused": 3, "unknown": 3, "failed": 2}
_CEF_SEVERITY: Final = {"refused": 6, "unknown": 6, "failed": 4}
_ACTIVITY: Final = {"create": 1, "list": 2, "read": 2, "rotate": 3, "update": 3, "delete": 4, "destroy": 4}
_USER: Final = {"person": 1, "service": 3, "faas": 3, "function": 3}
_CEF_LINE: Final = " cs6="
_CEF_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def format_of(first_line: bytes) -> Format:
    """Tell an export's format from its first line."""
    if first_line.startswith(b"CEF:"):
        return "cef"
    return "jsonl" if first_line.startswith(b'{"format":') else "ocsf"


def encode_line(line: str, format_: Format) -> str:
    """Encode one line of an export as an event.

    Raises:
        LogError: The line is not one of an export.
    """
    if format_ == "jsonl":
        return line
    entry = _entry(line)
    return _ocsf(line, entry) if format_ == "ocsf" else _cef(line, entry)


def decode_line(event: bytes, format_: Format) -> bytes:
    """The line of the export that an event carries.

    Raises:
        LogError: It carries none, or says something else than its line.
    """
    if len(event) > 8 * MAX_LINE_BYTES:
        raise LogError("the export has a line that is too long")
    if format_ == "jsonl":
        return event
    try:
        text = event.decode()
        line = load_object(event).get("raw_data") if format_ == "ocsf" else _cef_line(text)
        same = isinstance(line, str) and encode_line(line, format_) == text
    except (ValueError, TypeError, KeyError, AttributeError):
        same = False
    if not same:
        raise LogError("an event of the export says something else than the entry it carries")
    return str(line).encode()


def _entry(line: str) -> Mapping[str, Any] | None:
    """The entry in a line, or None for the first and last line."""
    try:
        members = load_object(line.encode())
    except ValueError:
        raise LogError("this is not a line of an export") from None
    entry = members.get("entry")
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("detail"), dict):
        raise LogError("this is not a line of an export")
    return entry


def _ocsf(line: str, entry: Mapping[str, Any] | None) -> str:
    product = {"name": "Cloister", "vendor_name": "Cloister"}
    metadata: dict[str, Any] = {"version": OCSF_VERSION, "product": product, "log_name": "audit"}
    if entry is None:
        event: dict[str, Any] = {
            "activity_id": 0,
            "category_uid": 0,
            "class_uid": 0,
            "type_uid": 0,
            "severity_id": 1,
            "time": 0,
            "message": "checkpoint of the audit log",
            "metadata": metadata,
        }
    else:
        activity = _ACTIVITY.get(entry["act"].rpartition(".")[2], _OTHER)
        user = {
            "name": entry["principal"],
            "type_id": _USER.get(entry["kind"], _OTHER),
            "type": entry["kind"],
        }
        event = {
            "activity_id": activity,
            "category_uid": 6,
            "class_uid": 6003,
            "type_uid": 600300 + activity,
            "severity_id": _SEVERITY.get(entry["outcome"], 1),
            "status_id": _STATUS.get(entry["outcome"], _OTHER),
            "status": entry["outcome"],
            "time": entry["at"],
            "actor": {"user": user, "invoked_by": entry["on_behalf_of"]},
            "api": {
                "operation": entry["act"],
                "service": {"name": "cloister"},
                "request": {"uid": entry["correlation_id"]},
            },
            "resources": [{"name": entry["resource"]}],
            "src_endpoint": {"name": "not recorded: sealed requests come through gateways"},
            "metadata": {
                **metadata,
                "uid": entry["id"],
                "tenant_uid": entry["tenant"],
                "correlation_uid": entry["correlation_id"],
            },
            "unmapped": entry["detail"],
        }
    return json.dumps({**event, "raw_data": line}, separators=(",", ":"))


def _cef(line: str, entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        name, severity, extension = "checkpoint", 0, {}
    else:
        name, severity = entry["act"], _CEF_SEVERITY.get(entry["outcome"], 1)
        extension = {
            "rt": entry["at"],
            "externalId": entry["id"],
            "act": entry["act"],
            "outcome": entry["outcome"],
            "suser": entry["principal"],
            "spriv": entry["kind"],
            "cs1Label": "resource",
            "cs1": entry["resource"],
            "cs2Label": "tenant",
            "cs2": entry["tenant"],
            "cs3Label": "onBehalfOf",
            "cs3": entry["on_behalf_of"],
            "cs4Label": "correlationId",
            "cs4": entry["correlation_id"],
            "cs5Label": "detail",
            "cs5": json.dumps(entry["detail"], separators=(",", ":")),
        }
    # The line comes last, so that it is found behind the only unescaped ` cs6=`.
    fields = {**extension, "cs6Label": "line", "cs6": line}
    header = "|".join(_cef_header(part) for part in ("Cloister", "Cloister", "1", name, name, str(severity)))
    return f"CEF:0|{header}|" + " ".join(f"{key}={_cef_value(value)}" for key, value in fields.items())


def _cef_header(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|")
    return escaped.replace("\r", " ").replace("\n", " ")


def _cef_value(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("=", "\\=")
    return escaped.replace("\r", "\\r").replace("\n", "\\n")


def _cef_line(event: str) -> str:
    _, found, line = event.partition(_CEF_LINE)
    if not found:
        raise ValueError("no line")
    return _CEF_ESCAPE.sub(lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), line)
