from __future__ import annotations

import pickle

import pytest

from cloister import jose
from cloister.errors import ConfigurationError
from cloister.protocol.deployment import deployment_id
from cloister.secret import Secret
from cloister_host.keymanager.root import RootKey, wrapping_key

ROOT = RootKey(Secret(bytes(range(32))), "test", {1: Secret(bytes(range(1, 33)))})


def test_a_root_derives_the_same_keys_every_time() -> None:
    again = RootKey(Secret(bytes(range(32))), "test", {1: Secret(bytes(range(1, 33)))})
    assert again.deployment == ROOT.deployment
    assert again.row_keys().mac == ROOT.row_keys().mac


def test_each_use_has_a_key_of_its_own() -> None:
    keys = ROOT.row_keys()
    uses = [
        bytes(range(32)),
        bytes(range(1, 33)),
        keys.mac.reveal(),
        keys.state.reveal(),
        wrapping_key(Secret(bytes(range(1, 33)))).reveal(),
        ROOT.api_key_hash_key().reveal(),
        jose.b64url_decode(ROOT.deployment_key.to_jwk()["d"]),
    ]
    assert len(set(uses)) == len(uses)
    assert {len(use) for use in uses} == {32}


def test_the_deployment_does_not_hang_on_a_generation() -> None:
    later = RootKey(Secret(bytes(range(32))), "test", {2: Secret(bytes(32))})
    assert later.deployment == ROOT.deployment
    assert later.log_key.to_jwk() == ROOT.log_key.to_jwk()
    assert later.row_keys().mac == ROOT.row_keys().mac


def test_two_roots_share_nothing() -> None:
    one, two = RootKey.generate("test"), RootKey.generate("test")
    assert one.deployment != two.deployment
    assert one.row_keys().mac != two.row_keys().mac


def test_the_deployment_is_the_hash_of_the_public_half() -> None:
    public = ROOT.deployment_key.public().to_jwk()["x"]
    assert ROOT.deployment == deployment_id(jose.b64url_decode(public))


def test_the_deployment_key_signs() -> None:
    token = jose.sign_compact(b"statement", ROOT.deployment_key, typ="x")
    assert jose.verify_compact(token, ROOT.deployment_key.public(), typ="x") == b"statement"


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_root_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError):
        RootKey(Secret(bytes(size)), "test", {1: Secret(bytes(32))})
    with pytest.raises(ConfigurationError):
        RootKey(Secret(bytes(32)), "test", {1: Secret(bytes(size))})


def test_a_root_does_not_show_or_pickle() -> None:
    for text in (repr(ROOT), str(ROOT), repr(ROOT.row_keys())):
        assert "\\x00\\x01" not in text
        assert bytes(range(32)).hex() not in text
    with pytest.raises(TypeError):
        pickle.dumps(ROOT)
