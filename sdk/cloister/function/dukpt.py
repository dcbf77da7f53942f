"""Keys of a payment terminal's transaction: AES DUKPT (ANSI X9.24-3:2017), the receiving side.

key = working_key(base_key, ksn=ksn, usage="pin", key_bits=128)
pin = pinblock.decipher(block, pan=pan, zone=Zone(format=4, key=key))
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cloister.errors import ConfigurationError
from cloister.secret import Secret

__all__ = ["KeyBits", "Usage", "initial_key", "working_key"]

Usage: TypeAlias = Literal[
    "pin", "mac-generation", "mac-verification", "mac", "data-encrypt", "data-decrypt", "data"
]
KeyBits: TypeAlias = Literal[128, 192, 256]

_USAGES: Final[dict[Usage, int]] = {
    "pin": 0x1000,
    "mac-generation": 0x2000,
    "mac-verification": 0x2001,
    "mac": 0x2002,
    "data-encrypt": 0x3000,
    "data-decrypt": 0x3001,
    "data": 0x3002,
}
_DERIVATION: Final = 0x8000
_INITIAL: Final = 0x8001
_ALGORITHMS: Final[dict[int, int]] = {128: 2, 192: 3, 256: 4}  # AES, table 2 of the standard
_KSN_BYTES: Final = 12
_ID_BYTES: Final = 8
_MAX_ONES: Final = 16  # a terminal skips counters with more bits set, so none is genuine


def initial_key(base_key: Secret, *, initial_key_id: bytes) -> Secret:
    """Derive the key that was loaded into the terminal named by `initial_key_id` (8 bytes).

    Raises:
        ConfigurationError: The base key is no AES key, or the identifier has another length.
    """
    if len(initial_key_id) != _ID_BYTES:
        raise ConfigurationError(f"an initial key identifier has {_ID_BYTES} bytes")
    return _derive(base_key, _INITIAL, 8 * len(base_key), initial_key_id)


def working_key(base_key: Secret, *, ksn: bytes, usage: Usage, key_bits: KeyBits) -> Secret:
    """Derive the key that a terminal used for one purpose in the transaction named by `ksn`.

    Args:
        base_key: The base derivation key, 16, 24 or 32 bytes.
        ksn: The key serial number of the message: initial key identifier and counter, 12 bytes.
        usage: What the terminal used the key for.
        key_bits: Its length, at most that of the base key.

    Raises:
        ConfigurationError: An argument is out of its range, or no terminal sends such a counter.
    """
    if len(ksn) != _KSN_BYTES:
        raise ConfigurationError(f"a key serial number has {_KSN_BYTES} bytes")
    if usage not in _USAGES:
        raise ConfigurationError(f"a usage is one of {', '.join(_USAGES)}")
    if key_bits not in _ALGORITHMS or key_bits > 8 * len(base_key):
        raise ConfigurationError("a working key has 128, 192 or 256 bits, and no more than the base key")
    counter = int.from_bytes(ksn[_ID_BYTES:], "big")
    if not 0 < counter.bit_count() <= _MAX_ONES:
        raise ConfigurationError(f"a transaction counter has 1 to {_MAX_ONES} bits set")
    key = _transaction_key(base_key, ksn[:_ID_BYTES], counter)
    return _derive(key, _USAGES[usage], key_bits, ksn[4:])


def _transaction_key(base_key: Secret, initial_key_id: bytes, counter: int) -> Secret:
    """Follow the counter's bits from the highest down (X9.24-3, section 6.5)."""
    key = initial_key(base_key, initial_key_id=initial_key_id)
    bits, reached = 8 * len(base_key), 0
    for place in range(31, -1, -1):
        if counter & (1 << place):
            reached |= 1 << place
            key = _derive(key, _DERIVATION, bits, initial_key_id[4:] + reached.to_bytes(4, "big"))
    return key


def _derive(key: Secret, usage: int, bits: int, context: bytes) -> Secret:
    """Encrypt derivation data, a block for each 128 bits of the new key (section 6.2)."""
    if 8 * len(key) not in _ALGORITHMS:
        raise ConfigurationError("a base derivation key has 16, 24 or 32 bytes")
    rest = usage.to_bytes(2, "big") + _ALGORITHMS[bits].to_bytes(2, "big") + bits.to_bytes(2, "big") + context
    data = b"".join(bytes((1, number)) + rest for number in range(1, -(-bits // 128) + 1))
    aes = Cipher(algorithms.AES(key.reveal()), modes.ECB())  # noqa: S305 - single blocks, as the standard says
    return Secret(aes.encryptor().update(data)[: bits // 8])
