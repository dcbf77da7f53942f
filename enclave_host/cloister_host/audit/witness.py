"""The witness a host asks to cosign its tree heads, over HTTP (C2SP tlog-witness)."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Final, Protocol

from cloister.errors import ConfigurationError, UnavailableError
from cloister.receipts.witness import COSIGNATURE, NoteKey, WitnessAheadError, add_request

__all__ = ["HttpWitness", "Witness"]

TIMEOUT_SECONDS: Final = 5
MAX_ANSWER_BYTES: Final = 16 * 1024
_CONFLICT: Final = 409


class Witness(Protocol):
    """Port: somebody else who cosigns the log's checkpoints."""

    @property
    def key(self) -> NoteKey:
        """Whose cosignatures these are."""
        ...

    def cosign(self, old: int, path: Sequence[bytes], note: str, signature: str) -> str:
        """Have a signed checkpoint cosigned; gives the signature line, not verified yet.

        Raises:
            WitnessAheadError: The witness has seen another size than `old`.
            UnavailableError: It does not answer, or refuses.
        """
        ...


class HttpWitness:
    """A witness behind a URL.

    Args:
        url: Its prefix; `/add-checkpoint` is put behind it.
        key: Its public key, as `name+hash+key`: what it says is believed for this, not for the URL.

    Raises:
        ConfigurationError: One of them is malformed.
    """

    def __init__(self, url: str, key: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise ConfigurationError("the witness's URL must be http or https")
        self._url = url.rstrip("/") + "/add-checkpoint"
        self.key: Final = NoteKey.parse(key, algorithm=COSIGNATURE)
        # Proxies of the environment are the operator's; the witness is reached directly.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def cosign(self, old: int, path: Sequence[bytes], note: str, signature: str) -> str:
        """Ask it; see `Witness`."""
        body = add_request(old, path, note, signature)
        request = urllib.request.Request(self._url, data=body, method="POST")  # noqa: S310 (checked above)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return _text(response.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                answer = _text(error.read(MAX_ANSWER_BYTES)) if error.code == _CONFLICT else ""
            if answer.isdecimal() and answer.isascii():
                raise WitnessAheadError(int(answer[:19])) from None
            raise UnavailableError(f"the witness refused with status {error.code}") from None
        except (OSError, ValueError):
            raise UnavailableError("the witness does not answer") from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").strip()
