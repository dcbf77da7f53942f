"""What importing and exporting keys takes and gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from cloister_host.keymanager.administration_messages import Named
from cloister_host.keymanager.messages import KeyCreate, Time
from cloister_host.operations import Request, Result

__all__ = ["Export", "Exported", "Import", "ImportKey", "ImportPrepare"]


class ImportPrepare(KeyCreate, kw_only=True):
    """Announces a key, or the next version of one, whose material will be brought.

    Attributes:
        suite: What the material will be wrapped with.
    """

    suite: Literal["HPKE-10-KE", "HPKE-7-KE"] = "HPKE-10-KE"


class ImportKey(Result):
    """What to wrap the material to, and as what; see the protocol's SPEC, section 7."""

    import_id: str
    kid: str
    purpose: str
    alg: str
    jwk: dict[str, Any]
    statement: str
    expires: int


class Import(Request):
    """Wrapped material for an import that was prepared."""

    import_id: Annotated[str, Meta(pattern=r"^import-[A-Za-z0-9_-]{22}\Z", max_length=29)]
    wrapped: Annotated[str, Meta(max_length=64 * 1024)]
    activate_at: Time | None = None


class Export(Named):
    """Names a version, and the HPKE public half that it is wrapped to."""

    to: Annotated[dict[str, Any], Meta(max_length=16)]


class Exported(Result):
    """A wrapped key version."""

    kid: str
    purpose: str
    alg: str
    wrapped: str
