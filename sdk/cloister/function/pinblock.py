"""PIN blocks of ISO 9564-1:2017, formats 0, 3 and 4, for use inside confidential functions.

    pin = decipher(block, pan=pan, zone=Zone(format=4, key=zone_key))
    block = translate(block, pan=pan, source=acquirer, target=issuer)

Formats 0 and 3 are eight bytes enciphered with triple DES, format 4 sixteen bytes with AES. A block
that does not open raises one opaque error whatever is wrong with it, since telling a bad digit from a
bad length is what PIN block attacks feed on. Fill and padding are drawn here, never passed in.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from cloister.errors import ConfigurationError, OpenError
from cloister.secret import Secret

__all__ = ["PinFormat", "Zone", "decipher", "decode", "encipher", "encode", "translate"]

PinFormat: TypeAlias = Literal[0, 3, 4]

_AES_FORMAT: Final = 4
_TWO_KEYS: Final = 16  # bytes of a triple DES key whose third part is its first
_MIN_PIN: Final = 4
_MAX_PIN: Final = 12
_MAX_PAN: Final = 19
_PAN_DIGITS: Final = 12  # of the account number, without its check digit
_BLOCK_BYTES: Final[dict[PinFormat, int]] = {0: 8, 3: 8, 4: 16}
_KEY_BYTES: Final[dict[PinFormat, frozenset[int]]] = {
    0: frozenset({16, 24}),
    3: frozenset({16, 24}),
    4: frozenset({16, 24, 32}),
}
_FILL: Final[dict[PinFormat, str]] = {0: "F", 3: "ABCDEF", 4: "A"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A PIN format and the key it is enciphered with between two parties.

    Args:
        format: 0, 3 or 4.
        key: Two- or three-key triple DES for formats 0 and 3, any AES key for format 4.

    Raises:
        ConfigurationError: The format is unknown, or the key has another length.
    """

    format: PinFormat
    key: Secret

    def __post_init__(self) -> None:
        _check_format(self.format)
        if len(self.key) not in _KEY_BYTES[self.format]:
            lengths = ", ".join(map(str, sorted(_KEY_BYTES[self.format])))
            raise ConfigurationError(f"a key for PIN block format {self.format} has {lengths} bytes")


def encode(pin: str, *, pan: str, format: PinFormat) -> bytes:  # noqa: A002 - the standard's word
    """Lay out a PIN as a clear block; for format 4 the PIN field, which does not depend on the account.

    Raises:
        ConfigurationError: The PIN has not 4 to 12 digits, or the account number cannot be used.
    """
    _check_format(format)
    if not _MIN_PIN <= len(pin) <= _MAX_PIN or not _is_decimal(pin):
        raise ConfigurationError(f"a PIN has {_MIN_PIN} to {_MAX_PIN} digits")
    account = _account_field(pan, format)
    fill = "".join(secrets.choice(_FILL[format]) for _ in range(14 - len(pin)))
    field = bytes.fromhex(f"{format}{len(pin):X}{pin}{fill}")
    return field + secrets.token_bytes(8) if format == _AES_FORMAT else _xor(field, account)


def decode(block: bytes, *, pan: str, format: PinFormat) -> str:  # noqa: A002 - the standard's word
    """Read the PIN out of a clear block; undoes `encode`.

    Raises:
        OpenError: The block is malformed, or belongs to another account or format.
        ConfigurationError: The account number cannot be used.
    """
    _check_format(format)
    account = _account_field(pan, format)
    if len(block) != _BLOCK_BYTES[format]:
        raise _unopened()
    field = (block[:8] if format == _AES_FORMAT else _xor(block, account)).hex().upper()
    length = int(field[1], 16)
    pin, fill = field[2 : 2 + length], field[2 + length :]
    sound = field[0] == str(format) and _MIN_PIN <= length <= _MAX_PIN
    if not sound or not _is_decimal(pin) or set(fill) - set(_FILL[format]):
        raise _unopened()
    return pin


def encipher(pin: str, *, pan: str, zone: Zone) -> bytes:
    """Encode a PIN and encipher the block for a zone; errors as in `encode`."""
    block = encode(pin, pan=pan, format=zone.format)
    if zone.format != _AES_FORMAT:
        return _crypt(zone, block, encrypt=True)
    return _crypt(
        zone, _xor(_crypt(zone, block, encrypt=True), _account_field(pan, zone.format)), encrypt=True
    )


def decipher(block: bytes, *, pan: str, zone: Zone) -> str:
    """Decipher a block of a zone and read the PIN; errors as in `decode`."""
    account = _account_field(pan, zone.format)
    if len(block) != _BLOCK_BYTES[zone.format]:
        raise _unopened()
    clear = _crypt(zone, block, encrypt=False)
    if zone.format == _AES_FORMAT:
        clear = _crypt(zone, _xor(clear, account), encrypt=False)
    return decode(clear, pan=pan, format=zone.format)


def translate(block: bytes, *, pan: str, source: Zone, target: Zone) -> bytes:
    """Decipher a block of one zone and encipher it for another, for the same account.

    The account cannot change on the way: translation to another account number is what lets an
    attacker learn PINs from an HSM (ISO 9564-1, table 1).

    Raises:
        OpenError: The block does not open in the source zone.
        ConfigurationError: The account number cannot be used.
    """
    return encipher(decipher(block, pan=pan, zone=source), pan=pan, zone=target)


def _account_field(pan: str, pin_format: PinFormat) -> bytes:
    shortest = 1 if pin_format == _AES_FORMAT else _PAN_DIGITS + 1
    if not shortest <= len(pan) <= _MAX_PAN or not _is_decimal(pan):
        raise ConfigurationError(
            f"an account number for PIN block format {pin_format} has {shortest} to {_MAX_PAN} digits"
        )
    if pin_format != _AES_FORMAT:
        return bytes.fromhex("0000" + pan[-_PAN_DIGITS - 1 : -1])
    padded = pan.rjust(_PAN_DIGITS, "0")
    return bytes.fromhex(f"{len(padded) - _PAN_DIGITS}{padded}".ljust(32, "0"))


def _crypt(zone: Zone, block: bytes, *, encrypt: bool) -> bytes:
    key = zone.key.reveal()
    if zone.format == _AES_FORMAT:
        algorithm: algorithms.AES | TripleDES = algorithms.AES(key)
    else:
        algorithm = TripleDES(key + key[:8] if len(key) == _TWO_KEYS else key)
    cipher = Cipher(algorithm, modes.ECB())  # noqa: S305 - one block, as the standard says
    return (cipher.encryptor() if encrypt else cipher.decryptor()).update(block)


def _check_format(pin_format: int) -> None:
    if pin_format not in _BLOCK_BYTES:
        raise ConfigurationError("a PIN block has format 0, 3 or 4")


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _unopened() -> OpenError:
    return OpenError("the PIN block did not open")
