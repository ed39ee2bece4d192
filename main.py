"""Gemma 3 270M on the command line.

    python main.py "Once upon a time"     continue a text
    python main.py chat                   talk (/reset forgets, /exit or Ctrl-D ends, Ctrl-C stops an answer)
    python main.py serve                  serve it with OpenAI's API (the flags of openai_api.run)

Text goes to standard output, everything else to standard error. Bad input ends with one line and exit status 2.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from gemma3.chat import ChatStyle, Message, render_chat
from gemma3.checkpoint import Checkpoint, load_all, open_checkpoint
from gemma3.errors import Gemma3Error
from gemma3.locate import TERMS, locate_weights

if TYPE_CHECKING:
    from gemma3.generate import Gemma3Generator
    from gemma3.model import Gemma3ForCausalLM
    from gemma3.tokenizer import Gemma3Tokenizer

log = logging.getLogger("gemma3")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Write text with Gemma 3 270M.",
        epilog="The words 'chat' and 'serve' are commands; 'main.py serve --help' lists the server's own flags.",
    )
    parser.add_argument("prompt", help="the text to continue, or 'chat' to talk")
    parser.add_argument("--model", help="a directory, a .gguf file, OWNER/NAME on the Hub, '270m' or '270m-it'")
    parser.add_argument("--max-new-tokens", type=_number(int, 1, 1_000_000), default=128, metavar="N")
    parser.add_argument(
        "--temperature", type=_number(float, 0.0, 2.0), default=0.0, help="0 (default) takes the likeliest"
    )
    parser.add_argument("--top-k", type=_number(int, 1, 1_000_000), help="draw from the K likeliest tokens only")
    parser.add_argument("--top-p", type=_number(float, 1e-6, 1.0), help="draw from the likeliest tokens that make up P")
    parser.add_argument("--seed", type=_number(int, 0, 2**63 - 1), help="the same seed gives the same text")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=_number(int, 1, 1_024), help="CPU threads (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="no log lines, no figures")
    return parser.parse_args(argv)


def _number(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """An argparse type that names the range when a value is outside it."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            words = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text[:60]!r} is not {words} from {low:g} to {high:g}")
        return value

    return convert


@dataclass(frozen=True, slots=True)
class Session:
    """Everything loaded, and when the program began (seconds, ``time.perf_counter``)."""

    generator: "Gemma3Generator"
    style: ChatStyle
    args: argparse.Namespace
    began_s: float
    loaded_s: float


def load(args: argparse.Namespace, began_s: float) -> Session:
    """Find, check and load the weights."""
    located = locate_weights(args.model, beside=Path(__file__).resolve().parent)
    checkpoint = open_checkpoint(located.path)
    log.info("Weights: %s (%s)", located.path, located.reason)
    if located.is_first_use:
        log.info(TERMS)
    model, tokenizer = _load_all(checkpoint, args)
    import torch

    from gemma3.generate import Gemma3Generator

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    style = ChatStyle.GEMMA_TURNS if checkpoint.is_instruction_tuned(tokenizer) else ChatStyle.TRANSCRIPT
    return Session(Gemma3Generator(model, tokenizer), style, args, began_s, time.perf_counter())


def _load_all(checkpoint: Checkpoint, args: argparse.Namespace) -> "tuple[Gemma3ForCausalLM, Gemma3Tokenizer]":
    with tqdm(desc="Loading", disable=args.quiet or not sys.stderr.isatty(), leave=False) as bar:

        def progress(num_done: int, num_steps: int) -> None:
            bar.total = num_steps
            bar.update(num_done - bar.n)

        return load_all(checkpoint, dtype=args.dtype, device=args.device, progress=progress)


def write_answer(session: Session, token_ids: Sequence[int], stop: Sequence[str], stop_token_ids: Sequence[int]) -> str:
    """Stream one continuation to standard output; afterwards a line of figures. Ctrl-C ends the answer early."""
    args, generator = session.args, session.generator
    asked_s, first_s, num_tokens, text = time.perf_counter(), 0.0, 0, ""
    chunks = generator.stream(
        token_ids,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        stop=stop,
        stop_token_ids=stop_token_ids,
    )
    try:
        for chunk in chunks:
            first_s = first_s or time.perf_counter()
            num_tokens += 1
            text += chunk.text
            print(chunk.text, end="", flush=True)
    except KeyboardInterrupt:
        log.info("\n(stopped)")
    print(flush=True)
    _log_figures(session, asked_s, first_s, num_tokens)
    return text


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


def complete(session: Session) -> None:
    """Continue ``args.prompt``."""
    generator, args = session.generator, session.args
    token_ids = generator.tokenizer.encode(args.prompt, add_bos=True)
    _warn_if_windowed(session, token_ids)
    if not args.quiet:
        print(args.prompt, end="", flush=True)
    write_answer(session, token_ids, (), ())


def chat(session: Session) -> None:
    """Talk until the input ends. The whole history is rendered anew for every turn."""
    history: list[Message] = []
    log.info("Chatting with %s. /reset forgets, /exit ends, Ctrl-C stops an answer.", session.style.value)
    while (line := _read_line()) is not None:
        if line == "/reset":
            history.clear()
            log.info("(forgotten)")
        elif line:
            history.append(Message("user", line))
            prompt = render_chat(history, session.generator.tokenizer, session.style)
            _warn_if_windowed(session, prompt.token_ids)
            answer = write_answer(session, prompt.token_ids, prompt.stop, prompt.stop_token_ids)
            history.append(Message("assistant", answer.strip()))


def _read_line() -> str | None:
    """The next line of the user; ``None`` at the end of input, ``/exit`` or Ctrl-C."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if line == "/exit" else line


def _warn_if_windowed(session: Session, token_ids: Sequence[int]) -> None:
    from gemma3.generate import window

    kept = len(window(token_ids, session.generator.model.config.context_length, session.args.max_new_tokens))
    if kept < len(token_ids):
        log.warning("The prompt has %d tokens; only the last %d fit the context and are used.", len(token_ids), kept)


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
        session = load(args, began_s)
        (chat if args.prompt == "chat" else complete)(session)
    except Gemma3Error as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
