"""What the operations for applications take and give. Bytes are base64url; batches keep their order."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cloister_host.keymanager.messages import MAX_BATCH, Context
from cloister_host.operations import Name, Request, Result

__all__ = [
    "Ciphertexts",
    "Decrypt",
    "Encrypt",
    "MacOrSign",
    "Plaintexts",
    "Proofs",
    "Random",
    "RandomBytes",
    "Rewrap",
    "RewrapItem",
    "Rewrapped",
    "Verified",
    "Verify",
]

MAX_DATA_CHARS = 32 * 1024 * 1024
MAX_RANDOM_BYTES = 64 * 1024

Data = Annotated[str, Meta(max_length=MAX_DATA_CHARS)]
Text = Annotated[str, Meta(max_length=48 * 1024 * 1024)]
DataColumn = Annotated[list[Data], Meta(min_length=1, max_length=MAX_BATCH)]
TextColumn = Annotated[list[Text], Meta(min_length=1, max_length=MAX_BATCH)]
AadColumn = Annotated[list[Annotated[str, Meta(max_length=64 * 1024)]], Meta(max_length=MAX_BATCH)]


class Encrypt(Request):
    """Bytes to be encrypted; `aad` is bound to each, and needed again to decrypt."""

    key: Name
    data: DataColumn
    aad: AadColumn | None = None

    def __repr__(self) -> str:
        return f"Encrypt(key={self.key!r}, {len(self.data)} items)"


class Ciphertexts(Result):
    """One ciphertext an item, and the version they are under."""

    kid: str
    ciphertexts: list[str]


class Decrypt(Request):
    """Ciphertexts to be decrypted."""

    ciphertexts: TextColumn
    aad: AadColumn | None = None

    def __repr__(self) -> str:
        return f"Decrypt({len(self.ciphertexts)} items)"


class Plaintexts(Result):
    """One plaintext a ciphertext; null where `errors` has a code by index."""

    data: list[str | None]
    errors: dict[str, str]

    def __repr__(self) -> str:
        return f"Plaintexts({len(self.data)} items)"


class MacOrSign(Request):
    """Bytes to be MACed or signed."""

    key: Name
    data: DataColumn

    def __repr__(self) -> str:
        return f"MacOrSign(key={self.key!r}, {len(self.data)} items)"


class Proofs(Result):
    """One MAC or signature an item, and the version they are under."""

    kid: str
    alg: str
    proofs: list[str]


class Verify(Request):
    """MACs or signatures, and what they are said to be of."""

    data: DataColumn
    proofs: TextColumn

    def __repr__(self) -> str:
        return f"Verify({len(self.data)} items)"


class Verified(Result):
    """How many are good; `errors` has a code by index for each that is not."""

    good: int
    errors: dict[str, str]


class Random(Request):
    """Asks for random bytes."""

    size_bytes: Annotated[int, Meta(ge=1, le=MAX_RANDOM_BYTES)]


class RandomBytes(Result):
    """Random bytes, from the operating system of the host."""

    data: str

    def __repr__(self) -> str:
        return "RandomBytes()"


class RewrapItem(Request, omit_defaults=True):
    """A sealed value or a ciphertext, and what it is bound to.

    Attributes:
        value: The sealed value or ciphertext.
        context: Of a sealed value. Where it is not given, the value keeps its data key.
        aad: Of a ciphertext.
    """

    value: Text
    context: Context | None = None
    aad: Annotated[str, Meta(max_length=64 * 1024)] = ""


class Rewrap(Request):
    """Values of one key to be moved to its current version."""

    key: Name
    items: Annotated[list[RewrapItem], Meta(min_length=1, max_length=MAX_BATCH)]

    def __repr__(self) -> str:
        return f"Rewrap(key={self.key!r}, {len(self.items)} items)"


class Rewrapped(Result):
    """The values under the current version, in their order; null where `errors` has a code by index.

    Attributes:
        moved: How many were under another version.
        kept: How many of them kept their data key, because no context was given.
    """

    kid: str
    values: list[str | None]
    errors: dict[str, str]
    moved: int
    kept: int
