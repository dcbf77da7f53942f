"""Unseal with a key that a TPM 2.0 gives out only to the boot states it was sealed for.

The key of the root key lies in an NV index of the TPM that has nothing but a policy to read it: the values of
the PCRs named here. A copy of the database is worth nothing without this TPM in such a state, and when the
index is undefined, nothing opens what was wrapped under it, whoever has kept a copy. A sealed object outside
the TPM could not be destroyed.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from cloister.errors import ConfigurationError, UnavailableError
from cloister_host.attester import tpm_client
from cloister_host.attester.tpm_client import Transport, open_tpm
from cloister_host.unseal.settings import Tpm2Settings
from cloister_host.unseal.tpm_session import OWNER, TpmError, digest, salted_session
from cloister_host.unseal.wrapped import KEY_BYTES, Wrapped, changed

__all__ = ["MAX_STATES", "Tpm2Unseal"]

MAX_STATES: Final = 8
MAX_FILE_BYTES: Final = 256 * 1024
_PCRS: Final = 24
_DIGEST_BYTES: Final = 32
_NV_DEFINE, _NV_UNDEFINE, _NV_READ, _NV_WRITE = 0x12A, 0x122, 0x14E, 0x137
_POLICY_PCR, _POLICY_OR = 0x17F, 0x171
_SHA256: Final = 0x0B
# Indices that a TPM's owner defines (TCG "Registry of Reserved TPM 2.0 Handles").
_FIRST_INDEX, _INDEX_BITS = 0x01800000, 22
# POLICYREAD | NO_DA | OWNERWRITE: who may write could also delete; reading is what the policy is for.
_ATTRIBUTES: Final = 0x00080000 | 0x02000000 | 0x00000002
_WRITTEN: Final = 0x20000000
_NV_DEFINED, _NV_FULL = 0x14C, 0x14B
_NO_SUCH_HANDLE: Final = 0x8B
_POLICY_FAILS: Final = frozenset({0x9D, 0x128, 0x84})
_ATTEMPTS: Final = 5

State = Mapping[int, bytes]
"""Values of PCRs, by index."""


class _Handle(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is needed beside the NV index to read it.

    Attributes:
        states: The accepted states. PCRs are no secret.
    """

    states: tuple[dict[int, bytes], ...]


class Tpm2Unseal:
    """Wraps under a key in the TPM's own memory, for the state the TPM is in now and those named.

    Raises:
        ConfigurationError: The settings name no PCR, or a state that is none.
    """

    name: Final = "tpm2"

    def __init__(self, settings: Tpm2Settings) -> None:
        pcrs = tuple(sorted(set(settings.pcrs)))
        if not pcrs or not all(0 <= index < _PCRS for index in pcrs):
            raise ConfigurationError(
                "the PCRs to seal to make no sense", hint="--unseal-option tpm-pcrs=4,7,11, say"
            )
        if len(settings.accept) >= MAX_STATES:
            raise ConfigurationError(f"a root key is sealed to {MAX_STATES} boot states at most")
        self._settings = settings
        self._pcrs = pcrs

    def wrap(self, plaintext: bytes, place: str) -> bytes:
        """Wrap under a new key, and give that to the TPM.

        Raises:
            ConfigurationError: A file with the PCRs to accept cannot be read as one, or the TPM is full.
            UnavailableError: The TPM does not answer.
        """
        others = [_read_state(path, self._pcrs) for path in self._settings.accept]
        key = os.urandom(KEY_BYTES)
        with self._tpm() as transport:
            states = [_state(transport, self._pcrs)]
            states += [state for state in others if state not in states]
            index = _define(transport, _policy(states), key)
        handle = msgspec.msgpack.encode(_Handle(tuple(dict(state) for state in states)))
        return Wrapped.seal(
            key, plaintext, provider=self.name, name=f"{index:#x}", place=place, handle=handle
        )

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Unwrap with the key that the TPM gives out in this state.

        Raises:
            ConfigurationError: The TPM is in another state, is another one, or the bytes were changed.
            UnavailableError: The TPM does not answer.
        """
        found = Wrapped.parse(wrapped, provider=self.name)
        index, states = _index(found), _states(found)
        with self._tpm() as transport:
            current = _state(transport, tuple(states[0]))
            if current not in states:
                raise _other_state(current, states)
            try:
                key = _read(transport, index, states, current)
            except TpmError as error:
                if error.reason in _POLICY_FAILS:
                    raise ConfigurationError(
                        "the TPM does not give out the key of the root key in this state",
                        hint="a PCR was extended since the boot, or the sealed root key was changed",
                    ) from None
                if error.reason == _NO_SUCH_HANDLE:
                    raise _no_index(index) from None
                raise
        return found.open(key, place)

    def renewed(self) -> Tpm2Unseal:
        """Every wrap has a key of its own."""
        return self

    def destroy(self, wrapped: bytes, place: str) -> bool:  # noqa: ARG002 (of the port)
        """Undefine the NV index.

        Raises:
            ConfigurationError: These are no bytes of this provider.
            UnavailableError: The TPM does not answer, or refuses.
        """
        found = Wrapped.parse(wrapped, provider=self.name)
        index, states = _index(found), _states(found)
        with self._tpm() as transport:
            name = _name(index, _policy(states), written=True)
            try:
                with salted_session(transport, "hmac") as session:
                    session.run(
                        _NV_UNDEFINE, handles=(OWNER, index), names=(_handle(OWNER), name), parameters=b""
                    )
            except TpmError as error:
                if error.reason != _NO_SUCH_HANDLE:
                    raise
        return True

    @contextmanager
    def _tpm(self) -> Iterator[Transport]:
        try:
            with closing(open_tpm(self._settings.device)) as transport:
                yield transport
        except (OSError, struct.error, IndexError):
            raise UnavailableError(
                "the TPM does not answer", hint=f"is {self._settings.device} there and ours?", retryable=True
            ) from None


def _define(transport: Transport, policy: bytes, key: bytes) -> int:
    """Put a key into an NV index that nobody has yet."""
    for _ in range(_ATTEMPTS):
        index = _FIRST_INDEX | int.from_bytes(os.urandom(4), "big") >> (32 - _INDEX_BITS)
        public = _public(index, policy, written=False)
        try:
            with salted_session(transport, "hmac") as session:
                session.run(
                    _NV_DEFINE,
                    handles=(OWNER,),
                    names=(_handle(OWNER),),
                    parameters=b"\0\0" + struct.pack(">H", len(public)) + public,
                )
                session.run(
                    _NV_WRITE,
                    handles=(OWNER, index),
                    names=(_handle(OWNER), _name(index, policy, written=False)),
                    parameters=struct.pack(">H", len(key)) + key + struct.pack(">H", 0),
                    encrypt="command",
                )
        except TpmError as error:
            if error.reason == _NV_FULL:
                raise ConfigurationError(
                    "the TPM has no room for another key", hint="undefine NV indices that nobody needs"
                ) from None
            if error.reason != _NV_DEFINED:
                raise
        else:
            return index
    raise UnavailableError("the TPM has no index left for another key")


def _read(transport: Transport, index: int, states: list[State], current: State) -> bytes:
    with salted_session(transport, "policy") as session:
        handle = struct.pack(">I", session.handle)
        pcrs = tuple(current)
        tpm_client.command(
            transport,
            _POLICY_PCR,
            parameters=handle
            + struct.pack(">H", _DIGEST_BYTES)
            + _pcr_digest(current)
            + tpm_client.pcr_selection(pcrs),
        )
        if len(states) > 1:
            branches = b"".join(struct.pack(">H", _DIGEST_BYTES) + _branch(state) for state in states)
            tpm_client.command(
                transport, _POLICY_OR, parameters=handle + struct.pack(">I", len(states)) + branches
            )
        name = _name(index, _policy(states), written=True)
        response = session.run(
            _NV_READ,
            handles=(index, index),
            names=(name, name),
            parameters=struct.pack(">HH", KEY_BYTES, 0),
            encrypt="response",
        )
    key = response[2:]
    if len(key) != KEY_BYTES:
        raise UnavailableError("the TPM's response is truncated")
    return key


def _state(transport: Transport, pcrs: tuple[int, ...]) -> State:
    return {index: tpm_client.pcr_read(transport, index) for index in pcrs}


def _pcr_digest(state: State) -> bytes:
    return digest(*(state[index] for index in sorted(state)))


def _branch(state: State) -> bytes:
    """The digest of a policy that asks for one state (part 3, TPM2_PolicyPCR)."""
    selection = tpm_client.pcr_selection(tuple(state))
    return digest(bytes(_DIGEST_BYTES), struct.pack(">I", _POLICY_PCR), selection, _pcr_digest(state))


def _policy(states: list[State]) -> bytes:
    """The digest of a policy that asks for one of these states (part 3, TPM2_PolicyOR)."""
    branches = [_branch(state) for state in states]
    if len(branches) == 1:
        return branches[0]
    return digest(bytes(_DIGEST_BYTES), struct.pack(">I", _POLICY_OR), *branches)


def _public(index: int, policy: bytes, *, written: bool) -> bytes:
    """The public area of the NV index (part 2, TPMS_NV_PUBLIC)."""
    attributes = _ATTRIBUTES | (_WRITTEN if written else 0)
    return (
        struct.pack(">IHIH", index, _SHA256, attributes, len(policy)) + policy + struct.pack(">H", KEY_BYTES)
    )


def _name(index: int, policy: bytes, *, written: bool) -> bytes:
    """Its name: an index that somebody defined in its place, with another policy, has another one."""
    return struct.pack(">H", _SHA256) + digest(_public(index, policy, written=written))


def _handle(value: int) -> bytes:
    return struct.pack(">I", value)


def _index(found: Wrapped) -> int:
    try:
        index = int(found.key, 16)
    except ValueError:
        raise changed(Tpm2Unseal.name) from None
    if index >> _INDEX_BITS != _FIRST_INDEX >> _INDEX_BITS or found.key != f"{index:#x}":
        raise changed(Tpm2Unseal.name)
    return index


def _states(found: Wrapped) -> list[State]:
    try:
        states: list[State] = list(msgspec.msgpack.decode(found.handle, type=_Handle).states)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise changed(Tpm2Unseal.name) from None
    if not 0 < len(states) <= MAX_STATES or not all(_sound(state, states[0]) for state in states):
        raise changed(Tpm2Unseal.name)
    return states


def _sound(state: State, first: State) -> bool:
    return (
        bool(state)
        and state.keys() == first.keys()
        and all(0 <= index < _PCRS for index in state)
        and all(len(value) == _DIGEST_BYTES for value in state.values())
    )


def _read_state(path: Path, pcrs: tuple[int, ...]) -> State:
    """The PCRs in a file as `cloister host evidence` writes it on a machine of the next image."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError
        values = json.loads(path.read_bytes())["pcrs"]
        state = {index: bytes.fromhex(values[str(index)]) for index in pcrs}
        if not _sound(state, state):
            raise ValueError
    except OSError as error:
        raise ConfigurationError(
            f"the PCRs to accept cannot be read ({error.strerror})", hint=f"look at {path}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigurationError(
            f"{path} does not hold the PCRs {', '.join(map(str, pcrs))}",
            hint="write it with `cloister host evidence --attester tpm` on a machine of the other image",
        ) from None
    return state


def _other_state(current: State, states: list[State]) -> ConfigurationError:
    nearest = min(states, key=lambda state: sum(state[index] != current[index] for index in current))
    other = ", ".join(str(index) for index in sorted(current) if nearest[index] != current[index])
    return ConfigurationError(
        f"this machine is in another boot state than the root key was sealed to: PCR {other}",
        hint="boot the image it was sealed for, or bring the recovery shares",
    )


def _no_index(index: int) -> ConfigurationError:
    return ConfigurationError(
        f"the TPM has no key at {index:#x}",
        hint="it is another TPM, was cleared, or this generation of the root key was destroyed",
    )
