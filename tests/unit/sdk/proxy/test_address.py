from __future__ import annotations

import os
import socket
import stat

import pytest

from cloister.errors import ConfigurationError
from cloister.proxy.address import Address
from cloister.proxy.server import token_files


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_loopback_is_bound(text):
    try:
        listener = Address.parse(text).bind()
    except ConfigurationError:
        assert text == "[::1]:0"
        pytest.skip("this machine has no IPv6")
    with listener:
        assert listener.getsockname()[0] in {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    "text", ["0.0.0.0:8788", "[::]:8788", "192.0.2.1:80", "example.com:80", "127.0.0.2:1"]
)
def test_what_others_can_reach_is_refused_unless_it_is_named(text):
    with pytest.raises(ConfigurationError, match="loopback"):
        Address.parse(text)
    assert Address.parse(text, beyond_loopback=True).host


@pytest.mark.parametrize(
    "text", ["", "8788", "127.0.0.1", "127.0.0.1:65536", "unix:", "unix:a.sock", "a b:1", ":1"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigurationError):
        Address.parse(text, beyond_loopback=True)


def test_a_taken_port_is_said(tmp_path):
    with (
        Address.parse("127.0.0.1:0").bind() as taken,
        pytest.raises(ConfigurationError, match="cannot listen"),
    ):
        Address.parse(f"127.0.0.1:{taken.getsockname()[1]}").bind()


def test_a_unix_socket_is_its_owners_whatever_the_mask(tmp_path):
    path = tmp_path / "proxy.sock"
    mask = os.umask(0)
    try:
        with Address.parse(f"unix:{path}").bind():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path):
    address = Address.parse(f"unix:{tmp_path / 'proxy.sock'}")
    address.bind().close()
    with address.bind(), pytest.raises(ConfigurationError):
        address.bind()


def test_a_file_that_is_no_socket_stays(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ConfigurationError):
        Address.parse(f"unix:{path}").bind()
    assert path.read_text() == "data"


def test_tokens_are_their_owners_new_each_time_and_gone_afterwards(tmp_path):
    path, curl = tmp_path / "new" / "token", tmp_path / "new" / "token.curl"
    seen = set()
    mask = os.umask(0)
    try:
        for _ in range(2):
            with token_files(path) as token:
                assert path.read_text().strip().encode() == token.reveal()
                assert f"Bearer {path.read_text().strip()}" in curl.read_text()
                assert {stat.S_IMODE(file.stat().st_mode) for file in (path, curl)} == {0o600}
                assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
                seen.add(token.reveal())
            assert not path.exists()
            assert not curl.exists()
    finally:
        os.umask(mask)
    assert len(seen) == 2
    assert all(len(token) >= 43 for token in seen)


def test_a_link_in_the_tokens_place_is_not_followed(tmp_path):
    target, path = tmp_path / "target", tmp_path / "token"
    target.write_text("data")
    path.symlink_to(target)
    with token_files(path):
        assert not path.is_symlink()
    assert target.read_text() == "data"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match="cannot be written"),
        token_files(tmp_path / "file" / "token"),
    ):
        pass


def test_the_port_that_was_bound_is_the_one_that_clients_reach():
    with Address.parse("127.0.0.1:0").bind() as listener, socket.socket() as client:
        client.connect(listener.getsockname())
