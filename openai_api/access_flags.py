"""The flags that say who may call, the keys they bring, and the settings they make.

Owns names, help texts and checks of these flags; ``command_line`` has all others. Knows nothing of
requests: ``transport/access.py`` checks those. Main thread, before anything is loaded.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from openai_api.flag_values import parse_host_name, parse_web_origin
from openai_api.settings import OptionError, ServerSettings
from openai_api.sockets import is_loopback

API_KEY_VARIABLE = "GEMMA3_API_KEY"

# What can stand in a header: no spaces, no control characters, nothing beyond ASCII.
_API_KEY = re.compile(r"[!-~]{1,512}")


def add_access_flags(group: argparse._ArgumentGroup) -> None:
    """Add them to ``group``."""
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
        served_model_names=tuple(dict.fromkeys(flags.served_model_name)),
        serves_any_model_name=flags.any_model_name,
        data_dir=flags.data_dir,
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
        raise OptionError(
            f"a key of --api-key, --api-key-file or {API_KEY_VARIABLE} is not 1 to 512 printable ASCII characters "
            "without spaces"
        )
    return tuple(keys)


def _keys_in_file(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        keys = Path(path).read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise OptionError(f"--api-key-file {path!r} cannot be read: {why}") from None
    if not keys:
        raise OptionError(f"--api-key-file {path!r} has no key in it")
    return keys
