"""SnapStart: one initialised process becomes many, so nothing drawn before the snapshot may be used after it.

The kernel's generator is reseeded by the virtual machine; OpenSSL's, inside `cryptography`, is not: it
would give every restored copy the same ephemeral keys.

Source: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html,
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html
"""

from __future__ import annotations

import functools
import os
from typing import Final

from cloister.errors import ConfigurationError
from cloister.faas import forget_shared_client
from cloister_aws import s3

__all__ = ["after_restore", "before_snapshot", "register"]

_SEED_BYTES: Final = 48


@functools.cache
def register() -> None:
    """Have the Lambda runtime call the hooks; without SnapStart it never does."""
    try:
        import snapshot_restore_py  # noqa: PLC0415 (part of the Lambda runtime, not of this package)
    except ImportError:
        return
    snapshot_restore_py.register_before_snapshot(before_snapshot)
    snapshot_restore_py.register_after_restore(after_restore)


def before_snapshot() -> None:
    """Leave no key, keyset, credential or connection in the snapshot."""
    forget_shared_client()
    s3.forget_default_client()


def after_restore() -> None:
    """Drop what the snapshot may still hold, and give OpenSSL's generator a seed of this copy's own.

    Raises:
        ConfigurationError: The generator cannot be reseeded: the copy must not start.
    """
    forget_shared_client()
    try:
        from cryptography.hazmat.bindings.openssl.binding import Binding  # noqa: PLC0415 (loads OpenSSL)

        lib = Binding().lib
        # Mixed into the primary generator, from which all others then reseed (RAND_add(3)).
        lib.RAND_add(os.urandom(_SEED_BYTES), _SEED_BYTES, float(_SEED_BYTES))
        seeded = lib.RAND_status() == 1
    except (ImportError, AttributeError):
        seeded = False
    if not seeded:
        raise ConfigurationError(
            "the random generator cannot be reseeded after a snapshot", hint="turn SnapStart off"
        )
