"""Which line an opened request waits in: its tenant's, once its credential has proven that it is one.

A request names its tenant before anything is proven. If that were believed, whoever can send requests could
fill the line of a tenant they have nothing to do with. So the first request of a credential waits in the
line of strangers, with everybody else's first and with all that will be refused.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

__all__ = ["STRANGERS", "Lines"]

STRANGERS: Final = ""
_REMEMBERED: Final = 16_384
_CERTIFICATES: Final = "chain"


class Lines:
    """Remembers which credentials were accepted for which tenant, by a keyed digest, as many as fit.

    It decides who waits for whom, and nothing else: each request is authenticated all the same.
    """

    def __init__(self) -> None:
        self._key: Final = os.urandom(32)
        self._lock = threading.Lock()
        self._proven: OrderedDict[bytes, None] = OrderedDict()

    def of(self, tenant: str, credential: Mapping[str, str | Sequence[str]]) -> str:
        """The line of a request with this credential."""
        return tenant if self._digest(tenant, credential) in self._proven else STRANGERS

    def proven(self, tenant: str, credential: Mapping[str, str | Sequence[str]]) -> None:
        """A credential was accepted for this tenant."""
        digest = self._digest(tenant, credential)
        with self._lock:
            self._proven[digest] = None
            self._proven.move_to_end(digest)
            if len(self._proven) > _REMEMBERED:
                self._proven.popitem(last=False)

    def refused(self, tenant: str, credential: Mapping[str, str | Sequence[str]]) -> None:
        """A credential is not accepted, or no longer."""
        with self._lock:
            self._proven.pop(self._digest(tenant, credential), None)

    def _digest(self, tenant: str, credential: Mapping[str, str | Sequence[str]]) -> bytes:
        # A client certificate signs every request anew; what stays is the certificate.
        chain = credential.get(_CERTIFICATES)
        lasting = [chain] if chain else [credential[name] for name in sorted(credential)]
        return hmac.digest(self._key, msgspec.json.encode([tenant, lasting]), "sha256")
