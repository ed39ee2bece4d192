"""``gemma3-server doctor``: the examination as a program.

Owns its flags, the check of the port, and the exit status: 0 if all is well, 1 if anything is wrong,
2 for wrong use. Main thread; no server, no event loop.
"""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from engine.doctor import files
from engine.doctor.examination import examine
from engine.doctor.finding import Finding, State, as_json, table
from engine.terminal.flag_parser import FlagParser
from engine.terminal.guard import run_guarded, say, write_output
from gemma3 import __version__
from openai_api.flag_values import parse_port
from openai_api.machine_memory import memory_limit
from openai_api.settings import OptionError
from openai_api.sockets import listen_on_port

PROGRAM = "gemma3-server doctor"
SOMETHING_IS_WRONG = 1


def main(argv: Sequence[str] | None = None, *, program: str = PROGRAM) -> int:
    """The exit status."""
    return run_guarded(program, lambda: _examine(flag_parser(program).parse(argv)))


def flag_parser(program: str) -> FlagParser:
    """All flags."""
    parser = FlagParser(
        prog=program,
        description="Check this machine, the weights and the arithmetic; exit status 1 if anything is wrong.",
    )
    add = parser.add_argument
    add("--model", help="Examine these weights, named as for the server (default: those that it finds first).")
    add(
        "--port",
        type=parse_port,
        default=8000,
        help="Look whether a server could have this port (default: %(default)s).",
    )
    add("--json", action="store_true", help="Print one JSON object (default: a table).")
    add(
        "--clean",
        action="store_true",
        help="Remove all that is kept and can be made again, and end (default: examine).",
    )
    return parser


def _examine(flags: argparse.Namespace) -> int:
    logging.getLogger("gemma3").setLevel(logging.CRITICAL)  # what it would say is found here
    if flags.clean:
        write_output(f"Removed {files.clean() / 1e6:.0f} MB; the next start makes anew what it needs.\n")
        return 0
    began_s = time.perf_counter()
    findings = [*_about_versions(), *_about_port(flags.port)]
    limit = memory_limit()
    for finding in examine(flags.model, None if limit is None else limit.num_bytes):
        findings.append(finding)
        if sys.stderr.isatty():
            say(f"{finding.subject}: {finding.state.value}")
    write_output(as_json(findings) + "\n" if flags.json else "\n".join(table(findings)) + "\n")
    say(f"Took {time.perf_counter() - began_s:.1f} s.")
    return SOMETHING_IS_WRONG if any(each.state is State.WRONG for each in findings) else 0


def _about_versions() -> Iterator[Finding]:
    python = ".".join(str(part) for part in sys.version_info[:3])
    names = ("fastapi", "uvicorn", "tokenizers", "torch")
    says = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("versions", State.OK, f"gemma3-270m-server {__version__}, Python {python}, {says}")


def _about_port(port: int) -> Iterator[Finding]:
    try:
        listen_on_port("127.0.0.1", port).close()
    except (OptionError, OSError) as error:
        says = " ".join(str(error).split())
        yield Finding("port", State.WRONG, says, f"end what listens there, or serve on another: --port {port + 1}")
    else:
        yield Finding("port", State.OK, f"{port} is free on 127.0.0.1")
