"""Who sends a request, in the two words that the engine knows of a caller.

Owns what counts as one caller: an API key, else an address. No key stands in a name, only its place
among the keys. Pure; on the event loop.
"""

import hashlib
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

from engine.caller import Caller
from openai_api.web_addresses import ip_address

IPV6_NETWORK_BYTES = 8


def caller_of_key(index: int) -> Caller:
    """The caller with key number ``index``; nobody else finds the prefixes of its prompts.

    Ids of requests, with which the engine salts too, have no space in them.
    """
    return Caller(name=f"key {index}", prefix_salt=f"key {index}")


def owner_of_key(key: bytes) -> str:
    """The name of what a key owns: the same after a restart, whichever place it then has among the
    keys, and without the key in it.
    """
    return hashlib.sha256(b"gemma3 owner\0" + key).hexdigest()[:32]


def caller_at_address(scope: Mapping[str, Any]) -> Caller:
    """A caller without a key: its address, or its /64 network, as one machine has all of that.

    All of them share their prefixes. Whoever can open a Unix socket is one caller.
    """
    host, _ = scope.get("client") or ("", 0)
    address = ip_address(host) if ":" in host else None
    if isinstance(address, IPv6Address):
        return Caller(name=f"network {address.packed[:IPV6_NETWORK_BYTES].hex(':', 2)}")
    return Caller(name=f"address {address or host}" if host else "")
