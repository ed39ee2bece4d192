"""The command line of the server: flags, their checks, and the options they make.

Owns names, help texts and forms of the flags; the defaults are those of ``EngineOptions`` and
``ServerSettings``, but for memory, which is this machine's. Knows nothing of sockets or of the
event loop, before which it runs, in the main thread. Every wrong value is one line on stderr and
exit status 2, before anything is loaded.
"""

import argparse
from collections.abc import Sequence

from engine.engine_options import EngineOptions
from engine.flags import add_model_flags, count, number
from engine.terminal.flag_parser import FlagParser
from openai_api.access_flags import add_access_flags
from openai_api.flag_values import parse_collector, parse_count, parse_memory, parse_path, parse_port
from openai_api.machine_memory import memory_limit
from openai_api.model_names import parse_model_name
from openai_api.settings import ServerSettings

PROGRAM = "openai_api.run"
# Beyond them nothing runs sooner: a step of so many sequences or tokens takes seconds.
MAX_NUM_SEQS = 4_096
MAX_NUM_BATCHED_TOKENS = 65_536
LEAST_KV_CACHE_BYTES = 128 << 20  # one sequence as long as the context of Gemma 3 270M takes 109.4 MiB
LOG_LEVELS = ("debug", "info", "warning", "error")


_ENGINE = EngineOptions()
_SERVER = ServerSettings()


def parse_flags(argv: Sequence[str] | None, *, program: str = PROGRAM) -> argparse.Namespace:
    """The flags of ``argv``, or of the process for ``None``; ``program`` is its name in the words
    of help and errors.

    Raises:
        SystemExit: with status 2 and one line on stderr, a flag is wrong.
    """
    return flag_parser(program).parse(argv)


def flag_parser(program: str) -> FlagParser:
    """All flags of the server."""
    parser = FlagParser(prog=program, description="Serve Gemma 3 270M with OpenAI's API.")
    add_engine_flags(parser)
    _add_server_flags(parser.add_argument_group("server"))
    add_access_flags(parser.add_argument_group("access"))
    return parser


def add_engine_flags(parser: FlagParser) -> None:
    """The flags that ``engine_options`` reads, for every program with an engine that serves many."""
    _add_model_flags(parser.add_argument_group("model"))
    _add_engine_flags(parser.add_argument_group("engine"))


def _add_model_flags(group: argparse._ArgumentGroup) -> None:
    add_model_flags(group)
    group.add_argument(
        "--served-model-name",
        nargs="+",
        action="extend",
        type=parse_model_name,
        default=[],
        metavar="NAME",
        help="Clients ask for the model by this name, or by any of several; the first is its own (default: the name "
        "of its folder or file).",
    )
    group.add_argument(
        "--any-model-name",
        action="store_true",
        help="Serve the model under whatever name a client has for it (default: another name is refused).",
    )
    group.add_argument(
        "--generation-config",
        choices=("auto", "none"),
        default=_ENGINE.generation_config,
        help="Take sampling defaults from the checkpoint (auto, the default) or ignore what it says (none).",
    )


def default_kv_cache_bytes() -> int:
    """An eighth of the memory there is, up to the engine's own default."""
    limit, most = memory_limit(), _ENGINE.kv_cache_memory
    return most if limit is None else max(LEAST_KV_CACHE_BYTES, min(limit.num_bytes // 8, most))


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    kv_cache_bytes = default_kv_cache_bytes()
    group.add_argument(
        "--max-model-len",
        type=parse_count,
        default=_ENGINE.max_model_len,
        metavar="TOKENS",
        help="Allow prompt and completion together this length (default: the model's context).",
    )
    group.add_argument(
        "--max-num-seqs",
        type=number(count(MAX_NUM_SEQS)),
        default=_ENGINE.max_num_seqs,
        metavar="N",
        help="Run at most so many sequences at once (default: %(default)s).",
    )
    group.add_argument(
        "--max-num-batched-tokens",
        type=number(count(MAX_NUM_BATCHED_TOKENS)),
        default=_ENGINE.max_num_batched_tokens,
        metavar="TOKENS",
        help="Compute at most so many tokens in one step (default: %(default)s).",
    )
    group.add_argument(
        "--kv-cache-memory",
        type=parse_memory,
        default=kv_cache_bytes,
        metavar="SIZE",
        help="Keep keys and values in at most this much memory, such as 512MiB; it is taken as it is needed (default: an "
        f"eighth of the memory there is, up to {_ENGINE.kv_cache_memory >> 20}MiB; here {kv_cache_bytes >> 20}MiB).",
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
    group.add_argument(
        "--uds", type=parse_path, metavar="PATH", help="Listen on this Unix socket instead (default: on a port)."
    )
    group.add_argument(
        "--data-dir",
        type=parse_path,
        metavar="DIR",
        help="Keep the responses of /v1/responses in this folder, for one server at a time (default: in memory, until "
        "the end).",
    )
    group.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="Write log records of this level and above to stderr (default: %(default)s).",
    )
    group.add_argument(
        "--otlp-traces-endpoint",
        type=parse_collector,
        metavar="URL",
        help="Send OpenTelemetry traces to this collector, such as http://localhost:4318; never texts; needs the "
        "extra 'otel' (default: none). The variables OTEL_* say the rest.",
    )


def engine_options(flags: argparse.Namespace) -> EngineOptions:
    """What the flags ask of the engine, sizes in bytes.

    Whether it can be is found when it loads, as a ValueError.
    """
    return EngineOptions(
        model=flags.model,
        served_model_name=flags.served_model_name[0] if flags.served_model_name else None,
        max_model_len=flags.max_model_len,
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        kv_cache_memory=flags.kv_cache_memory,
        quantization=flags.quantization,
        dtype=flags.dtype,
        device=flags.device,
        threads=flags.threads,
        chat_template=flags.chat_template,
        generation_config=flags.generation_config,
        prefix_caching=flags.prefix_caching,
    )
