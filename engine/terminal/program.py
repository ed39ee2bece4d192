"""The programs that write text at a terminal: continue one, or chat.

Owns their flags and the way from an argument, a pipe or a terminal to the writer of answers; knows
no server. Main thread. Text goes to standard output, everything else to standard error.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.terminal.guard import INTERRUPTED, write_output

if TYPE_CHECKING:
    from engine.terminal.answers import AnswerWriter
    from engine.terminal.flag_parser import FlagParser

# One sequence of 32,768 tokens needs 110 MiB in bfloat16; memory is taken as the context grows.
KV_CACHE_BYTES = 256 << 20
EXAMPLE = "Once upon a time"
STANDARD_INPUT = "-"
DEFAULT_MAX_TOKENS = 128

log = logging.getLogger("gemma3")


def text_parser(program: str) -> "FlagParser":
    """The flags of both programs; ``program`` is the name in the words of help and errors."""
    from engine.flags import add_model_flags
    from engine.terminal.flag_parser import FlagParser

    parser = FlagParser(
        prog=program,
        description="Write text with Gemma 3 270M.",
        epilog=f"The words 'chat', 'serve', 'ask' and 'doctor' are commands; '{program} serve --help' lists the server's "
        f"flags, '{program} ask --help' those of a client. '--print-completion bash' writes what lets a shell complete them all.",
    )
    parser.add_argument(
        "prompt",
        nargs="?",
        help="Continue this text, or the standard input for '-'; 'chat' talks (default: the standard input; on a "
        "terminal, an example).",
    )
    _add_sampling_flags(parser.add_argument_group("text"))
    add_model_flags(parser.add_argument_group("model"))
    logs = parser.add_argument_group("log").add_mutually_exclusive_group()
    logs.add_argument(
        "--quiet",
        action="store_true",
        help="Write the text alone, without log lines and figures (default: log to stderr).",
    )
    logs.add_argument(
        "--verbose",
        action="store_true",
        help="Write figures after each answer of a chat too (default: after a continued text alone).",
    )
    return parser


def _add_sampling_flags(group: argparse._ArgumentGroup) -> None:
    from engine.flags import count, number
    from engine.sampling_params import SETTINGS

    def add(name: str, text: str) -> None:
        group.add_argument(f"--{name.replace('_', '-')}", type=number(SETTINGS[name]), metavar="N", help=text)

    group.add_argument(
        "--max-tokens",
        "--max-new-tokens",
        type=number(count(1_000_000)),
        default=DEFAULT_MAX_TOKENS,
        metavar="N",
        help="Write at most N tokens (default: %(default)s).",
    )
    add("temperature", "Draw at this temperature; 0 takes the likeliest token (default: the checkpoint's, else 0).")
    add("top_k", "Draw from the N likeliest tokens only; 0 and -1 keep all (default: the checkpoint's, else 0).")
    add(
        "top_p",
        "Draw from the likeliest tokens that make up this mass; 0 takes one (default: the checkpoint's, else 1).",
    )
    add(
        "repetition_penalty",
        "Make tokens that were there less likely by this factor; 1 does not (default: 1, or 1.15 where neither the "
        "checkpoint nor a flag says how to draw).",
    )
    add("seed", "Write the same text for the same seed (default: another one at each start).")


def _load(args: argparse.Namespace, beside: Path | None, began_s: float) -> "AnswerWriter":
    """Find, check and load the weights."""
    from engine.llm_engine import LLMEngine
    from engine.terminal.answers import AnswerWriter
    from engine.terminal.sampling import FLAGS, choose_sampling
    from gemma3.progress import LoadingBar

    bar = LoadingBar(is_shown=not args.quiet and sys.stderr.isatty())
    try:
        engine = LLMEngine(
            args.model,
            beside=beside,
            progress=bar,
            max_num_seqs=1,
            kv_cache_memory=KV_CACHE_BYTES,
            quantization=args.quantization,
            dtype=args.dtype,
            device=args.device,
            threads=args.threads,
            chat_template=args.chat_template,
        )
    finally:
        bar.close()
    given = {name: value for name in FLAGS if (value := getattr(args, name)) is not None}
    sampling = choose_sampling(given, engine.info.default_sampling, seed=args.seed)
    log.info("Sampling: %s", sampling)
    return AnswerWriter(
        engine=engine,
        sampling=sampling,
        max_tokens=args.max_tokens,
        began_s=began_s,
        loaded_s=time.perf_counter(),
        shows_figures=args.verbose or (args.prompt != "chat" and not args.quiet),
    )


def _complete(writer: "AnswerWriter", prompt: str, *, with_prompt: bool) -> int:
    """Write the continuation, after the prompt or alone. The exit status."""
    token_ids = writer.window(writer.engine.loaded.tokenizer.encode(prompt, add_bos=True))
    if with_prompt:
        write_output(prompt)
    answer = writer.write(token_ids)
    return 0 if answer.finish_reason is not None else INTERRUPTED


def _prompt_of(argument: str | None, program: str) -> str:
    """The text to continue: the argument, or the standard input; on a terminal without an argument
    an example, with a line that says how to go on.

    Raises:
        ValueError: the standard input is empty, or no text.
    """
    if argument is not None and argument != STANDARD_INPUT:
        return argument
    if argument is None and sys.stdin.isatty():
        command = f"python {program}" if program.endswith(".py") else program
        log.info('An example; give a text of your own: %s "%s", or talk: %s chat', command, EXAMPLE, command)
        return EXAMPLE
    from engine.terminal.messages import read_all

    text = read_all().removesuffix("\n")
    if not text.strip():
        raise ValueError("the standard input is empty; give the text to continue as an argument, or pipe it.")
    return text


def _chat(writer: "AnswerWriter") -> int:
    """Talk until the input ends. The exit status."""
    from engine.terminal.chat import TerminalChat
    from engine.terminal.messages import MessageReader

    TerminalChat(writer).run(MessageReader())
    return 0


def write_text(argv: Sequence[str], *, program: str, beside: Path | None, began_s: float) -> int:
    """Continue a text or chat. The exit status.

    ``beside``: the folder in which the search for weights begins; ``began_s``: on ``time.perf_counter``.
    """
    args = text_parser(program).parse(argv)
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings say what the error after them says again.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if args.prompt == "chat":
        return _chat(_load(args, beside, began_s))
    prompt = _prompt_of(args.prompt, program)
    return _complete(_load(args, beside, began_s), prompt, with_prompt=not args.quiet)
