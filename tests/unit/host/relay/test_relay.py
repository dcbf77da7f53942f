"""What a relay and the parent's proxy carry, and what they refuse, on real sockets."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister.errors import ConfigurationError, DeniedError, UnavailableError
from cloister_host.egress.addresses import Address
from cloister_host.relay import Endpoint
from cloister_host.relay.network import enclave_network
from cloister_host.relay.parent import ParentProxy
from cloister_host.relay.relay import Relay, relaying, to
from cloister_host.relay.tunnel import open_tunnel

SECONDS = 30.0


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back all it got once the other side has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(connection: socket.socket) -> None:
            with connection:
                got = b""
                while data := connection.recv(65536):
                    got += data
                connection.sendall(got)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def here(_host: str, _port: int) -> Sequence[Address]:
    return [ipaddress.ip_address("127.0.0.1")]


class Parent:
    """A parent's proxy on a UNIX socket."""

    def __init__(self, path: Path, proxy: ParentProxy) -> None:
        self.endpoint = Endpoint.parse(f"unix:{path}")
        self.relay = Relay(self.endpoint.listen(), proxy.connect)

    def say(self, data: bytes) -> bytes:
        """What it answers to raw bytes, until it closes."""
        with self.endpoint.connect(SECONDS) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while got := connection.recv(4096):
                    answer += got
            except ConnectionResetError:
                pass
            return answer


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def port(stack: ExitStack) -> int:
    return stack.enter_context(echo())


def parent(stack: ExitStack, tmp_path: Path, **rules: Sequence[str]) -> Parent:
    found = Parent(tmp_path / "parent", ParentProxy(**rules, lookup=here))
    stack.enter_context(relaying([found.relay]))
    return found


def ask(connection: socket.socket, data: bytes) -> bytes:
    with connection:
        connection.settimeout(SECONDS)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while more := connection.recv(65536):
            got += more
        return got


def test_a_relay_carries_every_byte_and_the_end_of_each_side(
    stack: ExitStack, tmp_path: Path, port: int
) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/in")
    stack.enter_context(relaying([Relay(endpoint.listen(), to(Endpoint.parse(f"127.0.0.1:{port}")))]))
    data = bytes(range(256)) * 20_000
    assert ask(endpoint.connect(SECONDS), data) == data


def test_a_relay_without_another_end_closes(stack: ExitStack, tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/in")
    stack.enter_context(relaying([Relay(endpoint.listen(), to(Endpoint.parse(f"unix:{tmp_path}/none")))]))
    with endpoint.connect(SECONDS) as connection, pytest.raises(ConnectionResetError):
        _closed(connection)


def test_more_connections_than_a_relay_carries_are_closed(
    stack: ExitStack, tmp_path: Path, port: int
) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/in")
    relay = Relay(endpoint.listen(), to(Endpoint.parse(f"127.0.0.1:{port}")), max_connections=1)
    stack.enter_context(relaying([relay]))
    with endpoint.connect(SECONDS) as first:
        first.sendall(b"first")
        with endpoint.connect(SECONDS) as second, pytest.raises(ConnectionResetError):
            _closed(second)
        first.shutdown(socket.SHUT_WR)
        assert first.recv(10) == b"first"


def test_a_direction_that_says_nothing_for_long_ends(stack: ExitStack, tmp_path: Path, port: int) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/in")
    relay = Relay(endpoint.listen(), to(Endpoint.parse(f"127.0.0.1:{port}")), idle_seconds=0.05)
    stack.enter_context(relaying([relay]))
    with endpoint.connect(SECONDS) as connection:
        assert connection.recv(1) == b""


def test_the_parent_opens_what_it_was_told_to_allow(stack: ExitStack, tmp_path: Path, port: int) -> None:
    found = parent(stack, tmp_path, allow_private=[f"api.example:{port}"])
    connection = open_tunnel(found.endpoint, "API.example", port, SECONDS)
    assert ask(connection, b"over the tunnel") == b"over the tunnel"


def test_bytes_that_follow_the_request_at_once_are_carried(
    stack: ExitStack, tmp_path: Path, port: int
) -> None:
    found = parent(stack, tmp_path, allow_private=["*:*"])
    answer = found.say(f"CONNECT a.example:{port} HTTP/1.1\r\nHost: a.example\r\n\r\nearly".encode())
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert rest == b"early"


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"allow_private": ["other.example:{port}"]},
        {"allow_private": ["api.example:1"]},
        {"allow_private": ["*.api.example:{port}"]},
        {"allow_private": ["*.xample:{port}"]},
    ],
    ids=str,
)
def test_the_parent_refuses_everything_else(
    stack: ExitStack, tmp_path: Path, port: int, rules: dict[str, list[str]]
) -> None:
    rules = {name: [rule.format(port=port) for rule in found] for name, found in rules.items()}
    found = parent(stack, tmp_path, **rules)
    with pytest.raises(DeniedError, match="does not let"):
        open_tunnel(found.endpoint, "api.example", port, SECONDS)


@pytest.mark.parametrize("rule", ["*.example:{port}", "*:{port}", "api.example:*", "*:*"])
def test_rules_can_stand_for_more(stack: ExitStack, tmp_path: Path, port: int, rule: str) -> None:
    found = parent(stack, tmp_path, allow_private=[rule.format(port=port)])
    open_tunnel(found.endpoint, "api.example", port, SECONDS).close()


def test_an_allowed_name_at_an_address_that_is_not_public_is_refused(
    stack: ExitStack, tmp_path: Path, port: int
) -> None:
    found = parent(stack, tmp_path, allow=[f"api.example:{port}"])
    with pytest.raises(DeniedError):
        open_tunnel(found.endpoint, "api.example", port, SECONDS)


def test_an_origin_that_does_not_answer_is_unavailable(stack: ExitStack, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = parent(stack, tmp_path, allow_private=["*:*"])
    with pytest.raises(UnavailableError, match="could not reach"):
        open_tunnel(found.endpoint, "api.example", port, SECONDS)


@pytest.mark.parametrize("rule", ["", "api.example", "api.example:", ":443", "*", "a*b:443", "http://a:443"])
def test_a_malformed_rule_is_refused(rule: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        ParentProxy(allow=[rule])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a.example HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a.example:0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a.example:65536 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT -a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8192 + b"\r\n\r\n",
        b"\x16\x03\x01" + b"\0" * 100,
    ],
)
def test_a_malformed_request_connects_nowhere(stack: ExitStack, tmp_path: Path, data: bytes) -> None:
    asked: list[str] = []

    async def lookup(host: str, _port: int) -> Sequence[Address]:
        asked.append(host)
        return ()

    found = Parent(tmp_path / "parent", ParentProxy(allow_private=["*:*"], lookup=lookup))
    stack.enter_context(relaying([found.relay]))
    assert found.say(data)[:12] in {b"", b"HTTP/1.1 400"}
    assert not asked


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.from_regex(rb"CONNECT [ -~]{0,40} HTTP/1\.[01]\r\n[ -~\r\n]{0,60}"))
def test_any_bytes_are_a_request_or_our_error(data: bytes) -> None:
    async def nowhere(_host: str, _port: int) -> Sequence[Address]:
        return ()

    class Writer:
        def write(self, _data: bytes) -> None:
            pass

        async def drain(self) -> None:
            pass

    async def one() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await ParentProxy(allow=["*:*"], lookup=nowhere).connect(reader, Writer())  # type: ignore[arg-type]

    with pytest.raises((ConfigurationError, UnavailableError)):
        asyncio.run(one())


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 500 no\r\n\r\n", b"x" * 9000])
def test_a_parent_that_answers_anything_else_is_unavailable(tmp_path: Path, answer: bytes) -> None:
    endpoint = Endpoint.parse(f"unix:{tmp_path}/parent")
    with endpoint.listen() as listener:

        def say() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=say)
        thread.start()
        with pytest.raises((UnavailableError, OSError)):
            open_tunnel(endpoint, "a.example", 443, SECONDS)
        thread.join()


def test_a_forward_reaches_one_place_through_the_parent(stack: ExitStack, tmp_path: Path, port: int) -> None:
    found = parent(stack, tmp_path, allow_private=[f"db.internal:{port}"])
    forwards = [f"unix:{tmp_path}/db=db.internal:{port}", f"unix:{tmp_path}/proxy"]
    stack.enter_context(enclave_network(outbound=str(found.endpoint), forwards=forwards))
    assert ask(Endpoint.parse(f"unix:{tmp_path}/db").connect(SECONDS), b"select") == b"select"
    through = open_tunnel(Endpoint.parse(f"unix:{tmp_path}/proxy"), "db.internal", port, SECONDS)
    assert ask(through, b"direct") == b"direct"


def test_what_comes_in_reaches_the_host(stack: ExitStack, tmp_path: Path, port: int) -> None:
    stack.enter_context(enclave_network(inbound=[f"unix:{tmp_path}/in=127.0.0.1:{port}"]))
    assert ask(Endpoint.parse(f"unix:{tmp_path}/in").connect(SECONDS), b"request") == b"request"


@pytest.mark.parametrize(
    "inbound", ["vsock:5", "unix:/none=10.0.0.1:80", "unix:/none=vsock:3:5", "=127.0.0.1:1"]
)
def test_what_comes_in_goes_nowhere_else(inbound: str) -> None:
    with pytest.raises(ConfigurationError), enclave_network(inbound=[inbound]):
        pytest.fail("it was taken")


@pytest.mark.parametrize(
    ("forward", "outbound"),
    [
        ("127.0.0.1:0=db:5432", ""),
        ("0.0.0.0:0=db:5432", "unix:/none"),
        ("vsock:5=db:5432", "unix:/none"),
        ("127.0.0.1:0=db", "unix:/none"),
        ("127.0.0.1:0=a b:1", "unix:/none"),
        ("nonsense", "unix:/none"),
        ("127.0.0.1:0=db:1", "nonsense"),
    ],
)
def test_a_forward_that_cannot_be_meant_is_refused(forward: str, outbound: str) -> None:
    with pytest.raises(ConfigurationError), enclave_network(outbound=outbound, forwards=[forward]):
        pytest.fail("it was taken")


def _closed(connection: socket.socket) -> None:
    """A relay that refuses aborts; on some sockets that is an end, on others a reset."""
    if connection.recv(1) == b"":
        raise ConnectionResetError
