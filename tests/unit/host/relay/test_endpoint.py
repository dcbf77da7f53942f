"""Addresses of several families are read strictly, and written as they are read."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import ConfigurationError
from cloister_host.relay import Endpoint


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:8787", "db.internal:5432", "[::1]:80", "unix:/run/a:b.sock", "vsock:8787", "vsock:3:5000"],
)
def test_an_endpoint_is_written_as_it_is_read(text: str) -> None:
    assert str(Endpoint.parse(text)) == text


NONE = ("", "8787", "host", "host:", ":80", "host:-1", "host:65536", "host:٣", "unix:", "unix:/a\0b")
NO_VSOCK = ("", "a", "3:", "3:x", "1:2:3", f"{2**32}:1", f"{2**32}", "-1:5")


@pytest.mark.parametrize("text", [*NONE, *(f"vsock:{rest}" for rest in NO_VSOCK)])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no address"):
        Endpoint.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_endpoint_or_our_error(text: str) -> None:
    try:
        found = Endpoint.parse(text)
    except ConfigurationError:
        return
    assert Endpoint.parse(str(found)) == found


def test_only_loopback_and_paths_are_local() -> None:
    local = ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/a"]
    assert all(Endpoint.parse(text).is_local for text in local)
    # A vsock is reached by the parent, which is not trusted.
    assert not any(
        Endpoint.parse(text).is_local for text in ["0.0.0.0:1", "10.0.0.1:1", "vsock:1", "vsock:3:1"]
    )


def test_a_socket_at_a_path_is_for_this_user_alone(tmp_path: Path) -> None:
    with Endpoint.parse(f"unix:{tmp_path}/s").listen():
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/s")
    endpoint.listen().close()
    with endpoint.listen(), pytest.raises(ConfigurationError, match="cannot listen"):
        endpoint.listen()


def test_a_file_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    with pytest.raises(ConfigurationError, match="cannot listen"):
        Endpoint.parse(f"unix:{tmp_path}/s").listen()
    assert (tmp_path / "s").read_text() == "mine"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_connects_to_what_it_listens_on(tmp_path: Path, kind: str) -> None:
    text = f"unix:{tmp_path}/s" if kind == "unix" else "127.0.0.1:0"
    with Endpoint.parse(text).listen() as listener:
        if kind == "tcp":
            text = f"127.0.0.1:{listener.getsockname()[1]}"
        with Endpoint.parse(text).connect(10) as connection:
            accepted, _ = listener.accept()
            with accepted:
                connection.sendall(b"hello")
                assert accepted.recv(5) == b"hello"


def test_a_vsock_is_asked_for_by_cid_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Socket:
        def __init__(self, family: int, kind: int) -> None:
            asked.append((family, kind))

        def bind(self, address: object) -> None:
            asked.append(("bind", address))

        def listen(self, _backlog: int) -> None:
            asked.append("listen")

        def settimeout(self, _seconds: float) -> None:
            pass

        def connect(self, address: object) -> None:
            asked.append(("connect", address))

    monkeypatch.setattr(socket, "socket", Socket)
    Endpoint.parse("vsock:8787").listen()
    Endpoint.parse("vsock:3:5000").connect(1)
    stream = (socket.AF_VSOCK, socket.SOCK_STREAM)
    assert asked == [stream, ("bind", (2**32 - 1, 8787)), "listen", stream, ("connect", (3, 5000))]
