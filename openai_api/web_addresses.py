"""Hosts and origins in one form each, whether a flag gives them or a header does.

Owns their grammar: what is the same host or origin written in another way, and what is none. Knows
neither flags nor headers, and allows nothing. Pure, so any thread may call it.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from functools import lru_cache

DEFAULT_PORTS = {"http": "80", "https": "443"}
ANY_PORT = "*"

# Underscores are no part of a host name by the book, but names of containers have them.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63}){0,20}")
_AUTHORITY = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::([0-9]{0,5}))?")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s]+)")


@dataclass(frozen=True, slots=True)
class Authority:
    """``host`` in its normal form; ``port`` in digits, empty if there is none."""

    host: str
    port: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What a browser calls the pages of one site.

    ``port`` is empty for the scheme's own, and ``ANY_PORT`` in a list of those allowed.
    """

    scheme: str
    host: str
    port: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``host`` spells, without a zone; of an IPv4 address in IPv6 form, the former."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)
    return address


def normal_host(host: str) -> str | None:
    """A name in lower case without its last dot, or an address in its shortest form; ``None`` if it
    is neither.

    IPv6 addresses stand without brackets and without a zone.
    """
    name = host.lower().removesuffix(".")
    address = ip_address(name)
    if address is not None:
        return str(address)
    return name if _NAME.fullmatch(name) else None


# Nearly all requests have the same Host; to read it again takes 11 us.
@lru_cache(maxsize=16)
def parse_authority(text: str) -> Authority | None:
    """``HOST`` or ``HOST:PORT``, IPv6 in brackets; ``None`` if it is neither."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    in_brackets, plain, port = match.groups(default="")
    host = normal_host(in_brackets or plain)
    if host is None or (in_brackets and ":" not in in_brackets) or int(port or 0) >= 2**16:
        return None
    return Authority(host, port and str(int(port)))


def parse_origin(text: str) -> Origin | None:
    """``SCHEME://HOST`` or ``SCHEME://HOST:PORT`` and nothing behind it; else ``None``."""
    match = _ORIGIN.fullmatch(text)
    authority = parse_authority(match[2]) if match else None
    if match is None or authority is None:
        return None
    scheme = match[1].lower()
    is_default = authority.port == DEFAULT_PORTS.get(scheme)
    return Origin(scheme, authority.host, "" if is_default else authority.port)


def parse_allowed_origin(text: str) -> Origin | None:
    """As ``parse_origin``; ``SCHEME://HOST:*`` stands for every port, and a last slash for nothing."""
    bare = text.removesuffix("/")
    origin = parse_origin(bare.removesuffix(f":{ANY_PORT}"))
    if origin is None or not bare.endswith(f":{ANY_PORT}"):
        return origin
    return None if origin.port else replace(origin, port=ANY_PORT)
