"""Which Host headers are answered: the defence against web pages that point a name of theirs here.

Owns the allow-list and its one exception: an address cannot be pointed anywhere. Knows no path and
no status. Immutable; on the event loop.
"""

from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers

from openai_api.settings import ServerSettings
from openai_api.web_addresses import ip_address, normal_host, parse_authority

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


class HostRule:
    """Loopback names, the bound host, ``allowed_hosts``, and the address a connection came in on.

    With API keys every address is good: a page that knows none of them gets no further.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Raises: ValueError, a text is no host; the command line has checked its own."""
        self._names = frozenset(map(normal_host, (*LOOPBACK_HOSTS, *settings.allowed_hosts)))
        if None in self._names:
            raise ValueError("allowed_hosts are exact names or addresses, such as gemma.lan")
        self._names |= {normal_host(settings.host)}
        self._allows_addresses = bool(settings.api_keys)

    def allows(self, headers: Headers, scope: Mapping[str, Any]) -> bool:
        """Whether the request has one Host header, of a host that may stand there; any port will
        do.
        """
        hosts = headers.getlist("host")
        authority = parse_authority(hosts[0]) if len(hosts) == 1 else None
        if authority is None:
            return False
        if authority.host in self._names or authority.host == _own_address(scope):
            return True
        return self._allows_addresses and ip_address(authority.host) is not None


def _own_address(scope: Mapping[str, Any]) -> str | None:
    """Where the client reached this machine; ``None`` for a Unix socket."""
    host, port = scope.get("server") or ("", None)
    address = None if port is None else ip_address(host)
    return None if address is None else str(address)
