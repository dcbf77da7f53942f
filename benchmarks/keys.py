"""What a host does with keys for applications, in batches, beside the bare primitive in the same process.

The figures are of the service in one transaction of the store, without HTTP: rights, key states, usage
counters and audit entries are in them.
"""

from __future__ import annotations

import hmac
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.jose import b64url_encode
from cloister_host.identity.caller import SYSTEM_TENANT, Caller
from cloister_host.keymanager.root import RootKey
from cloister_host.services import bootstrap, build_services
from cloister_host.store import Store
from figures import Row, median_us

BATCH = 1_000
TENANT = "acme"
SIZE = 100


def rows() -> list[Row]:
    """Rates per second, batches of a thousand items of 100 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return _rows(Path(folder))


def _rows(folder: Path) -> list[Row]:
    root = RootKey.generate("test")
    store = Store(f"sqlite:///{folder / 'host.db'}", root.row_keys())
    store.migrate()
    services = build_services(store, root, time.time)
    bootstrap(services)
    operations = services.operations()

    def call(op: str, who: Caller, **payload: Any) -> Any:
        request = operations[op].parse(msgspec.json.encode(payload))
        with store.begin() as tx:
            return operations[op].handler(who, request, tx)

    operator = Caller(tenant=SYSTEM_TENANT, principal="operator", kind="person", correlation_id="bench")
    admin = Caller(tenant=TENANT, principal="admin", kind="person", correlation_id="bench")
    call("tenant.create", operator, tenant=TENANT)
    for key, purpose in (("notes", "seal"), ("stamp", "mac"), ("contracts", "sign")):
        call("key.create", admin, key=key, purpose=purpose)
    for action in ("encrypt", "decrypt", "mac", "sign", "verify", "rewrap"):
        call("grant.create", admin, principal="admin", action=action, resource="key/*")

    items = [os.urandom(SIZE) for _ in range(BATCH)]
    data = [b64url_encode(item) for item in items]
    aead, octets, signer = AESGCM(os.urandom(32)), os.urandom(32), Ed25519PrivateKey.generate()
    encrypted = call("key.encrypt", admin, key="notes", data=data).ciphertexts
    macs = call("key.mac", admin, key="stamp", data=data).proofs
    nonce = os.urandom(12)
    sealed = [aead.encrypt(nonce, item, b"") for item in items]
    figures = [
        _row(
            "encrypt",
            partial(call, "key.encrypt", admin, key="notes", data=data),
            "AES-GCM",
            lambda: [aead.encrypt(os.urandom(12), item, b"") for item in items],
        ),
        _row(
            "decrypt",
            partial(call, "key.decrypt", admin, ciphertexts=encrypted),
            "AES-GCM",
            lambda: [aead.decrypt(nonce, item, b"") for item in sealed],
        ),
        _row(
            "mac",
            partial(call, "key.mac", admin, key="stamp", data=data),
            "HMAC",
            lambda: [hmac.digest(octets, item, "sha256") for item in items],
        ),
        _row(
            "verify MACs",
            partial(call, "key.verify", admin, data=data, proofs=macs),
            "HMAC",
            lambda: [hmac.digest(octets, item, "sha256") for item in items],
        ),
        _row(
            "sign, Ed25519",
            partial(call, "key.sign", admin, key="contracts", data=data),
            "Ed25519",
            lambda: [signer.sign(item) for item in items],
        ),
    ]
    call("key.rotate", admin, key="notes")
    moving = [{"value": text} for text in encrypted]
    rewrap = partial(call, "key.rewrap", admin, key="notes", items=moving)
    figures.append(
        _row(
            "rewrap ciphertexts",
            rewrap,
            "AES-GCM, open and seal",
            lambda: [aead.encrypt(os.urandom(12), aead.decrypt(nonce, item, b""), b"") for item in sealed],
        )
    )
    store.close()
    return figures


def _row(what: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object]) -> Row:
    return Row(
        what=f"{what}, batch of {BATCH:,}, {SIZE} bytes",
        ours=BATCH / median_us(ours) * 1e6,
        unit="items/s",
        peer=peer,
        theirs=BATCH / median_us(theirs) * 1e6,
    )
