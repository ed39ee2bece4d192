"""Gemma 3 270M on the command line.

    python main.py "Once upon a time"     continue a text
    python main.py                        continue the standard input, or an example
    python main.py chat                   talk (/reset forgets, /exit or Ctrl-D ends, Ctrl-C stops an answer)
    python main.py serve                  serve it with OpenAI's API (the flags of openai_api.run)

Text goes to standard output, everything else to standard error. Bad input ends with one line and exit status 2.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.llm_engine import LLMEngine
    from engine.sampling_params import SamplingParams
# One sequence of 32,768 tokens needs 110 MiB in bfloat16; memory is taken as the context grows.
KV_CACHE_BYTES = 256 << 20
EXAMPLE = "Once upon a time"

log = logging.getLogger("gemma3")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    from engine.flags import add_model_flags

    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Write text with Gemma 3 270M.",
        epilog="The words 'chat' and 'serve' are commands; 'main.py serve --help' lists the server's own flags.",
    )
    parser.add_argument(
        "prompt",
        nargs="?",
        help="The text to continue, or 'chat' to talk (default: the standard input; on a terminal, an example).",
    )
    _add_sampling_flags(parser)
    add_model_flags(parser)
    parser.add_argument("--quiet", action="store_true", help="Write the text alone, without log lines and figures.")
    return parser.parse_args(argv)


def _add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    from engine.flags import count, number
    from engine.sampling_params import SETTINGS

    def add(name: str, default: float | None, text: str) -> None:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=number(SETTINGS[name]), default=default, metavar="N", help=text)

    most = number(count(1_000_000))
    parser.add_argument(
        "--max-new-tokens", type=most, default=128, metavar="N", help="Write at most N tokens (default: 128)."
    )
    add("temperature", 0.0, "Draw at this temperature; 0 (default) takes the likeliest token.")
    add("top_k", 0, "Draw from the N likeliest tokens only; 0 (default) keeps all.")
    add("top_p", 1.0, "Draw from the likeliest tokens that make up this mass; 1 (default) keeps all.")
    add("seed", None, "Write the same text for the same seed (default: another one at each start).")


@dataclass(frozen=True, slots=True)
class Session:
    """Everything loaded, and when the program began (seconds, ``time.perf_counter``)."""

    engine: "LLMEngine"
    args: argparse.Namespace
    began_s: float
    loaded_s: float

    @property
    def context_length(self) -> int:
        return self.engine.info.max_model_len


def load(args: argparse.Namespace, began_s: float) -> Session:
    """Find, check and load the weights."""
    from engine.llm_engine import LLMEngine
    from gemma3.progress import LoadingBar

    bar = LoadingBar(is_shown=not args.quiet and sys.stderr.isatty())
    try:
        engine = LLMEngine(
            args.model,
            beside=Path(__file__).resolve().parent,
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
    return Session(engine, args, began_s, time.perf_counter())


def write_answer(session: Session, token_ids: Sequence[int], stop: Sequence[str], stop_token_ids: Sequence[int]) -> str:
    """Stream one continuation to standard output; afterwards a line of figures. Ctrl-C ends the answer early."""
    from engine.errors import EngineError

    asked_s, first_s, num_tokens, text = time.perf_counter(), 0.0, 0, ""
    params = _sampling_params(session, len(token_ids), stop, stop_token_ids)
    try:
        with closing(session.engine.stream(token_ids, params)) as outputs:
            for delta in (delta for output in outputs for delta in output.deltas):
                first_s = first_s or time.perf_counter()
                num_tokens += len(delta.token_ids)
                text += delta.text
                print(delta.text, end="", flush=True)
    except EngineError as error:
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        log.info("\n(stopped)")
    print(flush=True)
    _log_figures(session, asked_s, first_s, num_tokens)
    return text


def _sampling_params(
    session: Session, num_prompt_tokens: int, stop: Sequence[str], stop_token_ids: Sequence[int]
) -> "SamplingParams":
    from engine.sampling_params import SamplingParams

    args = session.args
    return SamplingParams(
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        max_tokens=min(args.max_new_tokens, session.context_length - num_prompt_tokens),
        stop=tuple(stop),
        stop_token_ids=tuple(stop_token_ids),
    )


def _log_figures(session: Session, asked_s: float, first_s: float, num_tokens: int) -> None:
    decode_s = time.perf_counter() - first_s
    speed = f"{(num_tokens - 1) / decode_s:.1f} tokens/s" if num_tokens > 1 else "-"
    log.info(
        "load %.2f s, first token %.0f ms after the prompt (%.2f s after start), %d tokens, %s",
        session.loaded_s - session.began_s,
        (first_s - asked_s) * 1e3,
        first_s - session.began_s,
        num_tokens,
        speed,
    )


def complete(session: Session, prompt: str) -> None:
    """Write the prompt and its continuation; with ``--quiet`` the continuation alone."""
    token_ids = _window(session, session.engine.loaded.tokenizer.encode(prompt, add_bos=True))
    if not session.args.quiet:
        print(prompt, end="", flush=True)
    write_answer(session, token_ids, (), ())


def prompt_without_argument() -> str:
    """The standard input if it is piped; on a terminal an example, with a line that says how to go on.

    Raises:
        ValueError: the standard input is empty.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        log.info('An example; give a text of your own: python main.py "%s", or talk: python main.py chat', EXAMPLE)
        return EXAMPLE
    text = sys.stdin.read().removesuffix("\n") if sys.stdin is not None else ""
    if not text.strip():
        raise ValueError("the standard input is empty; give the text to continue as an argument, or pipe it.")
    return text


def chat(session: Session) -> None:
    """Talk until the input ends. The whole history is rendered anew for every turn; what was computed is found in the cache."""
    from gemma3.text.chat import Message

    history: list[Message] = []
    style = session.engine.loaded.chat_format.name
    log.info("Chatting with %s. /reset forgets, /exit ends, Ctrl-C stops an answer.", style)
    while (line := _read_line()) is not None:
        if line == "/reset":
            history.clear()
            log.info("(forgotten)")
        elif line:
            history.append(Message("user", line))
            prompt = session.engine.loaded.render_chat(history)
            answer = write_answer(session, _window(session, prompt.token_ids), prompt.stop, prompt.stop_token_ids)
            history.append(Message("assistant", answer.strip()))


def _read_line() -> str | None:
    """The next line of the user; ``None`` at the end of input, ``/exit`` or Ctrl-C."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if line == "/exit" else line


def _window(session: Session, token_ids: Sequence[int]) -> Sequence[int]:
    """The part of a prompt that the model sees, with a notice if that is not all."""
    from gemma3.text.window import window

    max_new_tokens: int = session.args.max_new_tokens
    kept = window(token_ids, context_length=session.context_length, max_new_tokens=max_new_tokens)
    if len(kept) < len(token_ids):
        num_tokens, num_kept = len(token_ids), len(kept)
        log.warning("The prompt has %d tokens; only the last %d fit the context and are used.", num_tokens, num_kept)
    return kept


def main(argv: Sequence[str]) -> int:
    began_s = time.perf_counter()
    if argv[:1] == ["serve"]:
        from openai_api.run import main as serve

        return serve(argv[1:])
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        prompt = prompt_without_argument() if args.prompt is None else args.prompt
        session = load(args, began_s)
        if args.prompt == "chat":
            chat(session)
        else:
            complete(session, prompt)
    except ValueError as error:  # what a person can put right, and it says how
        print(f"main.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
