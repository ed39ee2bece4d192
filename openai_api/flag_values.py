"""The values of flags: sizes, counts, ports, paths, hosts and origins from the words of a command line.

Owns their forms and the words of what is wrong with them. Knows no flag. Called in the main thread,
before the event loop runs.
"""

import argparse
import re

from openai_api.machine_memory import memory_limit
from openai_api.web_addresses import normal_host, parse_allowed_origin, parse_origin

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d{1,40}(?:\.\d{1,15})?)\s*([kmgt]i?)?b?", re.IGNORECASE)
_MAX_DIGITS = 10
# Scheme and authority, then a path.
_COLLECTOR = re.compile(r"(https?://[^/?#\s]+)(/[!-~]*)?", re.IGNORECASE)
TRACES_PATH = "/v1/traces"


def parse_size(text: str) -> int:
    """``1.5GiB`` in bytes.

    Raises:
        argparse.ArgumentTypeError: not a size, or 0.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a size such as 512MiB or 1.5GiB")
    num_bytes = int(float(match[1]) * _UNITS[(match[2] or "").lower()])
    if num_bytes <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return num_bytes


def parse_memory(text: str) -> int:
    """A size, in bytes, that this process may have.

    Raises:
        argparse.ArgumentTypeError: not a size, 0, or more than there is.
    """
    num_bytes = parse_size(text)
    limit = memory_limit()
    if limit is not None and num_bytes > limit.num_bytes:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is more than {limit.source}, {limit.num_bytes / 2**30:.1f}GiB")
    return num_bytes


def parse_path(text: str) -> str:
    """A path as it is; an empty one is none.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("'' is no path")
    return text


def parse_count(text: str) -> int:
    """An integer from 1 that fits 32 bits.

    Raises:
        argparse.ArgumentTypeError: it is not.
    """
    if not (_is_short_number(text) and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not an integer from 1 to {2**31 - 1}")
    return int(text)


def parse_port(text: str) -> int:
    """A TCP port; 0 stands for any.

    Raises:
        argparse.ArgumentTypeError: not an integer from 0 to 65535.
    """
    if not (_is_short_number(text) and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a port from 0 to 65535")
    return int(text)


def _is_short_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


def parse_host_name(text: str) -> str:
    """A name or an address for the Host header, in its normal form; IPv6 in brackets or without.

    Raises:
        argparse.ArgumentTypeError: it is neither, or has a scheme, a port or a path around it.
    """
    name = text.strip()
    is_bracketed = name.startswith("[") and name.endswith("]")
    host = normal_host(name[1:-1] if is_bracketed else name)
    if host is None:
        _check_ascii(text)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one exact name or address such as gemma.lan, without scheme, port or path "
            "(every port is accepted)"
        )
    return host


def parse_web_origin(text: str) -> str:
    """An origin as browsers write it, or ``http://localhost:*`` for every port.

    Raises:
        argparse.ArgumentTypeError: no page can have that origin, or it is not exact.
    """
    origin = parse_allowed_origin(text.strip())
    if origin is None:
        _check_ascii(text)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not one exact origin such as https://app.example, without a path; "
            "http://localhost:* stands for every port of a host"
        )
    return str(origin)


def parse_collector(text: str) -> str:
    """Where OpenTelemetry's traces go, over HTTP; without a path to ``/v1/traces``, which all
    collectors have.

    Raises:
        argparse.ArgumentTypeError: it is no such URL, or has a key in it.
    """
    match = _COLLECTOR.fullmatch(text.strip())
    origin = parse_origin(match[1]) if match else None
    path = (match and match[2]) or "/"
    if origin is None or not set(path).isdisjoint("?#"):
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r} is not a URL such as http://localhost:4318, without user, query and fragment; keys belong "
            "into the variable OTEL_EXPORTER_OTLP_HEADERS"
        )
    return f"{origin}{TRACES_PATH if path == '/' else path}"


def _check_ascii(text: str) -> None:
    if not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} must be written as browsers send it, in ASCII: xn--...")
