"""The listening sockets: which addresses a host stands for, and what is taken or missing."""

import errno
import socket
from collections.abc import Iterator, Sequence

import pytest

from openai_api import sockets
from openai_api.settings import OptionError
from openai_api.sockets import Listeners, is_loopback, listen_on_port

Info = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]


@pytest.fixture
def opened() -> Iterator[list[Listeners]]:
    """What is put here is closed in the end."""
    listeners: list[Listeners] = []
    yield listeners
    for listener in (each for group in listeners for each in group.sockets):
        listener.close()


def addresses(listeners: Listeners) -> list[str]:
    return [listener.getsockname()[0] for listener in listeners.sockets]


def ports(listeners: Listeners) -> set[int]:
    return {listener.getsockname()[1] for listener in listeners.sockets}


def taken(address: str, port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost."])
def test_localhost_has_one_free_port_on_both_loopbacks(host: str, opened: list[Listeners]) -> None:
    opened.append(listen_on_port(host, 0))
    assert addresses(opened[0]) == ["127.0.0.1", "::1"]
    (port,) = ports(opened[0])
    assert opened[0].url == f"http://localhost:{port}"
    assert {listener.proto for listener in opened[0].sockets} == {socket.IPPROTO_TCP}
    assert is_loopback(host)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_taken_on_either_loopback_is_an_error(address: str) -> None:
    with taken(address) as other:
        port = other.getsockname()[1]
        with pytest.raises(OptionError, match=f"cannot listen on localhost port {port}: Address already in use"):
            listen_on_port("localhost", port)
    listen_again = listen_on_port("localhost", port)  # nothing was left open by the attempt
    for listener in listen_again.sockets:
        listener.close()


def fail_to_bind(monkeypatch: pytest.MonkeyPatch, *, family: socket.AddressFamily, number: int, times: int) -> None:
    """Sockets of ``family`` fail to bind, the first so many ``times``."""
    left = [times]
    bind = socket.socket.bind

    class Failing(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:
            if self.family == family and left[0]:
                left[0] -= 1
                raise OSError(number, "injected")
            bind(self, address)

    monkeypatch.setattr(sockets.socket, "socket", Failing)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_without_ipv6_localhost_is_ipv4(number: int, monkeypatch: pytest.MonkeyPatch, opened: list[Listeners]) -> None:
    fail_to_bind(monkeypatch, family=socket.AF_INET6, number=number, times=99)
    opened.append(listen_on_port("localhost", 0))
    assert addresses(opened[0]) == ["127.0.0.1"]
    assert opened[0].url == f"http://127.0.0.1:{ports(opened[0]).pop()}"
    with pytest.raises(OptionError, match="cannot listen on ::1 port 0"):
        listen_on_port("::1", 0)


def test_a_free_port_that_is_taken_on_the_other_loopback_is_given_up(
    monkeypatch: pytest.MonkeyPatch, opened: list[Listeners]
) -> None:
    fail_to_bind(monkeypatch, family=socket.AF_INET6, number=errno.EADDRINUSE, times=3)
    opened.append(listen_on_port("localhost", 0))
    assert addresses(opened[0]) == ["127.0.0.1", "::1"]
    fail_to_bind(monkeypatch, family=socket.AF_INET6, number=errno.EADDRINUSE, times=99)
    with pytest.raises(OptionError, match="in use"):
        listen_on_port("localhost", 0)


def test_a_name_is_all_of_its_addresses(monkeypatch: pytest.MonkeyPatch, opened: list[Listeners]) -> None:
    found: Sequence[str] = ("127.0.0.2", "127.0.0.3", "127.0.0.2")

    def getaddrinfo(_host: str, port: int, **_options: int) -> list[Info]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(sockets.socket, "getaddrinfo", getaddrinfo)
    opened.append(listen_on_port("Box.lan", 0))
    assert addresses(opened[0]) == ["127.0.0.2", "127.0.0.3"]
    assert opened[0].url == f"http://box.lan:{ports(opened[0]).pop()}"


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "0.0.0.0")])
def test_an_address_is_itself(host: str, shown: str, opened: list[Listeners]) -> None:
    opened.append(listen_on_port(host, 0))
    assert opened[0].url == f"http://{shown}:{ports(opened[0]).pop()}"


def test_only_alone_an_ipv6_wildcard_takes_ipv4_too(monkeypatch: pytest.MonkeyPatch, opened: list[Listeners]) -> None:
    """Beside 0.0.0.0 it would find the port taken."""
    opened.append(listen_on_port("::", 0))
    both = [
        (family, socket.SOCK_STREAM, 6, "", (address, 0))
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))
    ]
    monkeypatch.setattr(sockets.socket, "getaddrinfo", lambda *_args, **_options: both)
    opened.append(listen_on_port("*", 0))
    assert opened[1].url.startswith("http://0.0.0.0:")
    v6_only = [group.sockets[-1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for group in opened]
    assert v6_only == [0, 1]


@pytest.mark.parametrize("host", ["", "a..b", "my host", "no.such.host.invalid", "x" * 300])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(OptionError, match="no address of this machine"):
        listen_on_port(host, 0)
