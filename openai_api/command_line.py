"""The command line of the server: flags, their checks, and the options they make.

Owns names, help texts and forms of the flags; the defaults are those of ``EngineOptions`` and
``ServerSettings``. Knows nothing of sockets or of the event loop, before which it runs, in the main
thread. Every wrong value is one line on stderr and exit status 2, before anything is loaded.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from engine.engine_options import EngineOptions
from engine.flags import add_model_flags
from openai_api.flag_values import parse_count, parse_host_name, parse_port, parse_size, parse_web_origin
from openai_api.settings import OptionError, ServerSettings
from openai_api.sockets import is_loopback

API_KEY_VARIABLE = "GEMMA3_API_KEY"
LOG_LEVELS = ("debug", "info", "warning", "error")

# What can stand in a header: no spaces, no control characters, nothing beyond ASCII.
_API_KEY = re.compile(r"[!-~]{1,512}")


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Write one line to stderr and end with exit status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")


_ENGINE = EngineOptions()
_SERVER = ServerSettings()


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags of ``argv``, or of the process for ``None``.

    Raises:
        SystemExit: with status 2 and one line on stderr, a flag is wrong.
    """
    parser = _OneLineParser(prog="openai_api.run", description="Serve Gemma 3 270M with OpenAI's API.")
    _add_model_flags(parser.add_argument_group("model"))
    _add_engine_flags(parser.add_argument_group("engine"))
    _add_server_flags(parser.add_argument_group("server"))
    _add_access_flags(parser.add_argument_group("access"))
    return parser.parse_args(argv)


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add_model_flags(group)
    group.add_argument(
        "--served-model-name",
        default=_ENGINE.served_model_name,
        metavar="NAME",
        help="Clients ask for the model by this name (default: the name of its folder or file).",
    )
    group.add_argument(
        "--generation-config",
        choices=("auto", "none"),
        default=_ENGINE.generation_config,
        help="Take sampling defaults from the checkpoint (auto, the default) or ignore what it says (none).",
    )


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-model-len",
        type=parse_count,
        default=_ENGINE.max_model_len,
        metavar="TOKENS",
        help="Allow prompt and completion together this length (default: the model's context).",
    )
    group.add_argument(
        "--max-num-seqs",
        type=parse_count,
        default=_ENGINE.max_num_seqs,
        metavar="N",
        help="Run at most so many sequences at once (default: %(default)s).",
    )
    group.add_argument(
        "--max-num-batched-tokens",
        type=parse_count,
        default=_ENGINE.max_num_batched_tokens,
        metavar="TOKENS",
        help="Compute at most so many tokens in one step (default: %(default)s).",
    )
    group.add_argument(
        "--kv-cache-memory",
        type=parse_size,
        default=_ENGINE.kv_cache_memory,
        metavar="SIZE",
        help=f"Keep keys and values in this much memory, such as 512MiB (default: {_ENGINE.kv_cache_memory >> 20}MiB).",
    )
    group.add_argument(
        "--no-prefix-caching",
        dest="prefix_caching",
        action="store_false",
        default=_ENGINE.prefix_caching,
        help="Compute every prompt anew (default: a prefix that is in the cache is taken from there).",
    )


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--host",
        default=_SERVER.host,
        help="Listen on this address, or on all that this name has (default: %(default)s).",
    )
    group.add_argument(
        "--port",
        type=parse_port,
        default=8000,
        help="Listen on this port; 0 takes any free one (default: %(default)s).",
    )
    group.add_argument("--uds", metavar="PATH", help="Listen on this Unix socket instead (default: on a port).")
    group.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="Write log records of this level and above to stderr (default: %(default)s).",
    )


def _add_access_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help=f"Ask clients for this key; may be given several times (default: ask for none). Others on this machine "
        f"see it in the list of processes: better use --api-key-file or the variable {API_KEY_VARIABLE}.",
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"Read keys from this file, one a line, which only you should be able to read; the variable "
        f"{API_KEY_VARIABLE} may hold another (default: none).",
    )
    group.add_argument(
        "--allow-unauthenticated",
        action="store_true",
        help="Listen beyond this machine without a key (default: refuse to).",
    )
    group.add_argument(
        "--allowed-host",
        type=parse_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="Accept this name or address in the Host header too, with any port; may be given several times (default: "
        "loopback names, --host and, if there is an API key, every address).",
    )
    group.add_argument(
        "--allowed-origin",
        type=parse_web_origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="Let web pages of this origin call, such as https://app.example or, for every port, http://localhost:*; "
        "may be given several times (default: none).",
    )


def engine_options(flags: argparse.Namespace) -> EngineOptions:
    """What the flags ask of the engine, sizes in bytes.

    Whether it can be is found when it loads, as a ValueError.
    """
    return EngineOptions(
        model=flags.model,
        served_model_name=flags.served_model_name,
        max_model_len=flags.max_model_len,
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        kv_cache_memory=flags.kv_cache_memory,
        quantization=flags.quantization,
        dtype=flags.dtype,
        device=flags.device,
        threads=flags.threads,
        generation_config=flags.generation_config,
        prefix_caching=flags.prefix_caching,
    )


def settings_from(flags: argparse.Namespace, environment: Mapping[str, str]) -> ServerSettings:
    """Who may call. An address that others reach needs a key, or a flag that says it needs none.

    Raises:
        OptionError: a host, a key or a key file that cannot be, or an open address without a key.
    """
    api_keys = _api_keys(flags, environment)
    if not (flags.uds or api_keys or flags.allow_unauthenticated or is_loopback(flags.host)):
        raise OptionError(f"--host {flags.host} is open to others: give --api-key or --allow-unauthenticated")
    return ServerSettings(
        host=flags.host,
        allowed_hosts=tuple(flags.allowed_host),
        allowed_origins=tuple(flags.allowed_origin),
        api_keys=api_keys,
    )


def exposed_keys(flags: argparse.Namespace) -> Mapping[str, str]:
    """Where others on this machine can read a key: an event for the log and the advice that goes
    with it.
    """
    advice = {}
    if flags.api_key:
        advice["api_key_in_process_list"] = f"use --api-key-file or the variable {API_KEY_VARIABLE}"
    if flags.api_key_file is not None and _is_open_to_others(flags.api_key_file):
        advice["api_key_file_open_to_others"] = "make it readable for its owner alone (chmod 600)"
    return advice


def _is_open_to_others(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & 0o077)
    except OSError:
        return False  # a pipe, read to its end


def _api_keys(flags: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, ...]:
    keys = [*flags.api_key, *_keys_in_file(flags.api_key_file)]
    # Empty is not set: so docker compose passes on a variable that its host does not have.
    if in_environment := environment.get(API_KEY_VARIABLE, "").strip():
        keys.append(in_environment)
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
