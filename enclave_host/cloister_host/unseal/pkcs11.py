"""Unseal with an AES key that lives in a hardware security module and never leaves it (PKCS #11).

The token wraps the root key with AES-256-GCM (`C_Encrypt`, a fresh nonce each time). The host logs in for
as long as one wrap or unwrap takes; after that it has no session, and the library is finalised.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.unseal.private import read_private
from cloister_host.unseal.settings import Pkcs11Settings
from cloister_host.unseal.wrapped import NONCE_BYTES, Wrapped, aad, changed

if TYPE_CHECKING:
    import pkcs11

__all__ = ["Pkcs11Unseal"]

TAG_BITS: Final = 128
KEY_BITS: Final = 256
MAX_PIN_BYTES: Final = 256
_NAME_BYTES: Final = 4


class Pkcs11Unseal:
    """Wraps under a key that was generated in a token, is sensitive, and can never be extracted.

    Raises:
        ConfigurationError: The settings name no library or no token, or the extra `hsm` is not installed.
    """

    name: Final = "pkcs11"

    def __init__(self, settings: Pkcs11Settings) -> None:
        if settings.module is None or not settings.token:
            raise ConfigurationError(
                "the unseal provider `pkcs11` needs a library and a token",
                hint="give --hsm-module and --hsm-token",
            )
        self._module = settings.module
        self._settings = settings
        self._label = settings.key
        self._api = _library()

    @classmethod
    def create(cls, settings: Pkcs11Settings) -> Pkcs11Unseal:
        """Generate the wrapping key inside the token.

        Raises:
            ConfigurationError: The token has a key of this label, refuses the PIN, or cannot be used.
            UnavailableError: The token does not answer.
        """
        provider = cls(settings)
        provider._generate(settings.key)
        return provider

    def renewed(self) -> Pkcs11Unseal:
        """Generate another wrapping key in the token, under a label that begins with the first one's.

        Raises:
            ConfigurationError: The token refuses.
            UnavailableError: The token does not answer.
        """
        made = Pkcs11Unseal(self._settings)
        made._label = f"{self._settings.key}-{os.urandom(_NAME_BYTES).hex()}"
        made._generate(made._label)
        return made

    def _generate(self, label: str) -> None:
        api = self._api
        with self._session(write=True) as session:
            if self._keys(session, label):
                raise ConfigurationError(
                    f"the token has a key {label!r} already",
                    hint="give a deployment a key of its own: --hsm-key",
                )
            session.generate_key(
                api.KeyType.AES,
                KEY_BITS,
                label=label,
                store=True,
                capabilities=api.MechanismFlag.ENCRYPT | api.MechanismFlag.DECRYPT,
                template={
                    api.Attribute.PRIVATE: True,
                    api.Attribute.SENSITIVE: True,
                    api.Attribute.EXTRACTABLE: False,
                    api.Attribute.MODIFIABLE: False,
                },
            )
            self._key(session, label)

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap inside the token.

        Raises:
            ConfigurationError: The token, the PIN or the key cannot be used.
            UnavailableError: The token does not answer.
        """
        label, nonce = self._label, os.urandom(NONCE_BYTES)
        with self._session() as session:
            key = self._key(session, label)
            sealed = bytes(key.encrypt(plaintext, **self._gcm(nonce, label, place)))
        return msgspec.msgpack.encode(Wrapped(self.name, label, nonce, sealed))

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap inside the token.

        Raises:
            ConfigurationError: The bytes were changed or wrapped by another key; or the token, the PIN or
                the key cannot be used.
            UnavailableError: The token does not answer.
        """
        found = self._parse(wrapped)
        with self._session() as session:
            key = self._key(session, found.key)
            if len(found.sealed) * 8 <= TAG_BITS:
                raise changed(self.name)
            try:
                return bytes(key.decrypt(found.sealed, **self._gcm(found.nonce, found.key, place)))
            except self._unreachable():
                raise
            except self._api.PKCS11Error:
                # Tokens do not agree on the error of a wrong tag; SoftHSM says CKR_GENERAL_ERROR.
                raise changed(self.name) from None

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Destroy the wrapping key in the token; backups of the token are the operators' to destroy.

        Raises:
            ConfigurationError: The token refuses.
            UnavailableError: The token does not answer.
        """
        found = self._parse(wrapped)
        with self._session(write=True) as session:
            for key in self._keys(session, found.key):
                key.destroy()
            if self._keys(session, found.key):
                raise ConfigurationError(
                    f"the token still has the key {found.key!r}", hint="destroy it with its vendor's means"
                )
        return True

    def _parse(self, wrapped: bytes) -> Wrapped:
        """Read a wrapped root key. Anyone may have written it: it names keys of this deployment only."""
        found = Wrapped.parse(wrapped, provider=self.name)
        own = re.escape(self._settings.key)
        if not re.fullmatch(rf"{own}(-[0-9a-f]{{{2 * _NAME_BYTES}}})?", found.key):
            raise changed(self.name)
        return found

    def _gcm(self, nonce: bytes, label: str, place: str) -> dict[str, Any]:
        return {
            "mechanism": self._api.Mechanism.AES_GCM,
            "mechanism_param": self._api.GCMParams(nonce, aad(self.name, label, place), TAG_BITS),
        }

    @contextmanager
    def _session(self, *, write: bool = False) -> Iterator[pkcs11.Session]:
        api, token = self._api, self._settings.token
        pin = self._pin()
        library = None
        try:
            library = api.lib(str(self._module))
            with library.get_token(token_label=token).open(rw=write, user_pin=pin) as session:
                yield session
        except (api.NoSuchToken, api.TokenNotRecognised):
            raise ConfigurationError(
                f"there is no token {token!r}", hint="look at --hsm-token, and whether the HSM is connected"
            ) from None
        except api.MultipleTokensReturned:
            raise ConfigurationError(f"there is more than one token {token!r}") from None
        except (api.PinIncorrect, api.PinInvalid, api.PinLenRange):
            raise ConfigurationError(
                f"the token {token!r} refuses the PIN",
                hint="it is tried once a start: tokens lock after a few wrong ones",
            ) from None
        except (api.PinLocked, api.PinExpired, api.UserPinNotInitialized):
            raise ConfigurationError(
                f"the PIN of the token {token!r} is locked, expired or was never set"
            ) from None
        except self._unreachable() as error:
            raise UnavailableError(
                f"the token {token!r} does not answer ({type(error).__name__})", retryable=True
            ) from None
        except api.PKCS11Error as error:
            what = "cannot be loaded" if library is None else f"failed ({type(error).__name__})"
            raise ConfigurationError(f"the PKCS #11 library {what}", hint=f"look at {self._module}") from None
        finally:
            if library is not None:
                library.finalize()

    def _unreachable(self) -> tuple[type[Exception], ...]:
        api = self._api
        return (
            api.DeviceError,
            api.DeviceMemory,
            api.DeviceRemoved,
            api.SessionClosed,
            api.SessionCount,
            api.SessionHandleInvalid,
            api.TokenNotPresent,
        )

    def _keys(self, session: pkcs11.Session, label: str) -> list[Any]:
        attribute = self._api.Attribute
        wanted = {attribute.CLASS: self._api.ObjectClass.SECRET_KEY, attribute.LABEL: label}
        return list(session.get_objects(wanted))

    def _key(self, session: pkcs11.Session, label: str) -> Any:
        attribute = self._api.Attribute
        found = self._keys(session, label)
        if len(found) != 1:
            raise ConfigurationError(
                f"the token has {'more than one' if found else 'no'} key {label!r}",
                hint="look at --hsm-key; `cloister host init` makes the key",
            )
        key = found[0]
        sound = (
            key[attribute.KEY_TYPE] == self._api.KeyType.AES
            and key[attribute.VALUE_LEN] * 8 == KEY_BITS
            and key[attribute.LOCAL]
            and key[attribute.ALWAYS_SENSITIVE]
            and key[attribute.NEVER_EXTRACTABLE]
        )
        if not sound:
            raise ConfigurationError(
                f"the key {label!r} is no AES-256 key that was born in the token and can never leave it",
                hint="let `cloister host init` make one",
            )
        return key

    def _pin(self) -> str:
        settings = self._settings
        if settings.pin_file is not None:
            pin = read_private(settings.pin_file, what="PIN file", limit=MAX_PIN_BYTES).strip(b"\r\n")
        elif settings.pin is not None:
            pin = settings.pin.reveal()
        else:
            pin = b""
        try:
            text = pin.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text or len(pin) > MAX_PIN_BYTES:
            raise ConfigurationError(
                "there is no PIN for the token", hint="give --hsm-pin-file, or set CLOISTER_HSM_PIN"
            )
        return text


def _library() -> Any:
    try:
        import pkcs11  # noqa: PLC0415 (the extra `hsm`)
    except ImportError:
        raise ConfigurationError(
            "PKCS #11 is not installed", hint="pip install 'cloister-host[hsm]'"
        ) from None
    return pkcs11
