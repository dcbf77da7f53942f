"""Seal and open values: the compact JWEs that columns, queues and files hold. See SPEC.md.

Online, a `Dek` from the host seals a whole column; offline, `seal_to` needs a public half only. Both bind a
context: a value copied to another row, customer or tenant does not open there.
"""

from cloister.envelope.author import author_of, authored, open_authored
from cloister.envelope.caches import DekCache, OpenCache
from cloister.envelope.content import ContentKey, ContentSealer
from cloister.envelope.context import canonical_context
from cloister.envelope.dek import DataKey, Dek
from cloister.envelope.offline import open_with, open_with_cek, recover_cek, seal_many_to, seal_to
from cloister.envelope.process import drop_data_keys
from cloister.envelope.sealed import Sealed
from cloister.envelope.values import JSON, Padded, Value

__all__ = [
    "JSON",
    "ContentKey",
    "ContentSealer",
    "DataKey",
    "Dek",
    "DekCache",
    "OpenCache",
    "Padded",
    "Sealed",
    "Value",
    "author_of",
    "authored",
    "canonical_context",
    "drop_data_keys",
    "open_authored",
    "open_with",
    "open_with_cek",
    "recover_cek",
    "seal_many_to",
    "seal_to",
]
