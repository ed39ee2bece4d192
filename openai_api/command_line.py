"""The command line of the server: flags, their checks, and the settings they make.

Every wrong value is one line on stderr and exit status 2, before anything is loaded.
"""

import argparse
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from openai_api.settings import ServerSettings

API_KEY_VARIABLE = "GEMMA3_API_KEY"
# Flags that are the engine's: handed on under these names, and only if given, as the defaults are the engine's too.
ENGINE_FLAGS = (
    "model",
    "served_model_name",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_memory",
    "quantization",
    "dtype",
    "device",
    "threads",
    "generation_config",
    "prefix_caching",
)
LOG_LEVELS = ("debug", "info", "warning", "error")

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
# What can stand in a header: no spaces, no control characters, nothing beyond ASCII.
_API_KEY = re.compile(r"[!-~]{1,512}")


class OptionError(ValueError):
    """A flag, a file or the environment asks for something that cannot be."""


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _OneLineParser(prog="openai_api.run", description="Serve Gemma 3 270M with OpenAI's API.")
    _add_model_flags(parser.add_argument_group("model"))
    _add_engine_flags(parser.add_argument_group("engine"))
    _add_server_flags(parser.add_argument_group("server"))
    return parser.parse_args(argv)


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", metavar="PATH|OWNER/NAME", help="directory, .gguf file or Hub repository")
    group.add_argument("--served-model-name", metavar="NAME", help="the name clients ask for")
    group.add_argument(
        "--quantization",
        choices=("auto", "none", "int8", "int4"),
        help="int8, int4: the native CPU core; none: torch; auto: int8 on a CPU, unless --dtype is given",
    )
    group.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), help="of torch")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"))
    group.add_argument(
        "--generation-config", choices=("auto", "none"), help="none: ignore the checkpoint's sampling defaults"
    )


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-model-len", type=_positive, metavar="TOKENS", help="prompt and completion together")
    group.add_argument("--max-num-seqs", type=_positive, metavar="N", help="sequences that run at once")
    group.add_argument("--max-num-batched-tokens", type=_positive, metavar="TOKENS", help="tokens computed in one step")
    group.add_argument("--kv-cache-memory", type=parse_size, metavar="SIZE", help="such as 512MiB or 1.5GiB")
    group.add_argument("--threads", type=_positive, metavar="N", help="threads of the model")
    group.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false", default=None)


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    group.add_argument("--port", type=_port, default=8000, help="0 takes any free one (default 8000)")
    group.add_argument("--uds", metavar="PATH", help="listen on a Unix socket instead")
    group.add_argument("--api-key", action="append", default=[], metavar="KEY", help="may be given several times")
    group.add_argument("--api-key-file", metavar="FILE", help=f"one key a line; also the variable {API_KEY_VARIABLE}")
    group.add_argument("--allow-unauthenticated", action="store_true", help="listen beyond this machine without a key")
    group.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="further Host header")
    group.add_argument("--allowed-origin", action="append", default=[], metavar="ORIGIN", help="web page that may call")
    group.add_argument("--log-level", choices=LOG_LEVELS, default="info")


def settings_from(flags: argparse.Namespace, environment: Mapping[str, str]) -> ServerSettings:
    """Raises: OptionError."""
    api_keys = _api_keys(flags, environment)
    if not (flags.uds or api_keys or flags.allow_unauthenticated or _is_loopback(flags.host)):
        raise OptionError(f"--host {flags.host} is open to others: give --api-key or --allow-unauthenticated")
    return ServerSettings(
        host=flags.host,
        allowed_hosts=tuple(flags.allowed_host),
        allowed_origins=tuple(flags.allowed_origin),
        api_keys=api_keys,
    )


def _api_keys(flags: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, ...]:
    keys = [*flags.api_key, *_keys_in_file(flags.api_key_file)]
    if API_KEY_VARIABLE in environment:
        keys.append(environment[API_KEY_VARIABLE])
    if not all(_API_KEY.fullmatch(key) for key in keys):
        raise OptionError("an API key is 1 to 512 printable ASCII characters without spaces")
    return tuple(keys)


def _keys_in_file(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        keys = Path(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        raise OptionError(f"--api-key-file {path} cannot be read") from None
    if not keys:
        raise OptionError(f"--api-key-file {path} has no key in it")
    return keys


def _is_loopback(host: str) -> bool:
    return all(ipaddress.ip_address(info[4][0]).is_loopback for info in _addresses(host, 0))


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int]]]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # type: ignore[return-value]
    except OSError:
        raise OptionError(f"--host {host} is no address of this machine") from None


def listen(flags: argparse.Namespace) -> socket.socket:
    """The bound socket; bound before the model is loaded, so that a taken port is known at once. Raises: OptionError."""
    if flags.uds:
        return _listen_on_path(flags.uds)
    family, kind, _, _, address = _addresses(flags.host, flags.port)[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OptionError(f"cannot listen on {flags.host} port {flags.port}: {os.strerror(error.errno or 0)}") from None
    return listener


def _listen_on_path(path: str) -> socket.socket:
    """Only this user may connect. A socket file that a dead server left behind is replaced, nothing else ever is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path) and _is_dead_socket(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    except OSError as error:
        listener.close()
        raise OptionError(f"cannot listen on --uds {path}: {os.strerror(error.errno or 0)}") from None
    return listener


def _is_dead_socket(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def parse_size(text: str) -> int:
    """``1.5GiB`` in bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512MiB or 1.5GiB")
    num_bytes = int(float(match[1]) * _UNITS[(match[2] or "").lower()])
    if num_bytes <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return num_bytes


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 to {2**31 - 1}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)
