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

if TYPE_CHECKING:
    from tqdm import tqdm

    from engine.engine_core import EngineCore
    from engine.loading import LoadedEngine

# One sequence of 32,768 tokens needs 110 MiB in bfloat16; memory is taken as the context grows.
KV_CACHE_BYTES = 256 << 20
REQUEST_ID = "main"

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
    parser.add_argument(
        "--quantization",
        choices=("auto", "none", "int8", "int4"),
        default="auto",
        help="int8, int4: the native CPU core; none: torch; auto (default): int8 on a CPU, unless --dtype is given",
    )
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of torch")
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

    engine: "LoadedEngine"
    args: argparse.Namespace
    began_s: float
    loaded_s: float

    @property
    def core(self) -> "EngineCore":
        return self.engine.core

    @property
    def context_length(self) -> int:
        return self.engine.info.max_model_len


class LoadingBar:
    """A progress bar that appears with the first news: most starts bring none, and need not import tqdm."""

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar: tqdm[None] | None = None

    def __call__(self, num_done: int, num_steps: int) -> None:
        if not self._is_shown:
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(desc="Loading", total=num_steps, leave=False)
        self._bar.update(num_done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def load(args: argparse.Namespace, began_s: float) -> Session:
    """Find, check and load the weights."""
    from engine.engine_options import EngineOptions
    from engine.loading import load_engine

    options = EngineOptions(
        model=args.model,
        max_num_seqs=1,
        kv_cache_memory=KV_CACHE_BYTES,
        quantization=args.quantization,
        dtype=args.dtype,
        device=args.device,
        threads=args.threads,
    )
    bar = LoadingBar(is_shown=not args.quiet and sys.stderr.isatty())
    try:
        engine = load_engine(options, beside=Path(__file__).resolve().parent, progress=bar)
    finally:
        bar.close()
    return Session(engine, args, began_s, time.perf_counter())


def write_answer(session: Session, token_ids: Sequence[int], stop: Sequence[str], stop_token_ids: Sequence[int]) -> str:
    """Stream one continuation to standard output; afterwards a line of figures. Ctrl-C ends the answer early."""
    asked_s, first_s, num_tokens, text = time.perf_counter(), 0.0, 0, ""
    _add_request(session, token_ids, stop, stop_token_ids)
    try:
        while session.core.has_unfinished_requests:
            result = session.core.step()
            for error in result.errors.values():
                raise ValueError(str(error)) from error
            for delta in (delta for output in result.outputs for delta in output.deltas):
                first_s = first_s or time.perf_counter()
                num_tokens += len(delta.token_ids)
                text += delta.text
                print(delta.text, end="", flush=True)
    except KeyboardInterrupt:
        session.core.abort_request(REQUEST_ID)
        log.info("\n(stopped)")
    print(flush=True)
    _log_figures(session, asked_s, first_s, num_tokens)
    return text


def _add_request(
    session: Session, token_ids: Sequence[int], stop: Sequence[str], stop_token_ids: Sequence[int]
) -> None:
    from engine.sampling_params import SamplingParams

    args = session.args
    params = SamplingParams(
        temperature=args.temperature,
        top_k=args.top_k or 0,
        top_p=args.top_p or 1.0,
        seed=args.seed,
        max_tokens=min(args.max_new_tokens, session.context_length - len(token_ids)),
        stop=tuple(stop),
        stop_token_ids=tuple(stop_token_ids),
    )
    session.core.add_request(REQUEST_ID, token_ids, params)


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
    args = session.args
    token_ids = _window(session, session.engine.tokenizer.encode(args.prompt, add_bos=True))
    if not args.quiet:
        print(args.prompt, end="", flush=True)
    write_answer(session, token_ids, (), ())


def chat(session: Session) -> None:
    """Talk until the input ends. The whole history is rendered anew for every turn; what was computed is found in the cache."""
    history: list[tuple[str, str]] = []
    style = session.engine.chat_style.value
    log.info("Chatting with %s. /reset forgets, /exit ends, Ctrl-C stops an answer.", style)
    while (line := _read_line()) is not None:
        if line == "/reset":
            history.clear()
            log.info("(forgotten)")
        elif line:
            history.append(("user", line))
            prompt = session.engine.render_chat(history)
            answer = write_answer(session, _window(session, prompt.token_ids), prompt.stop, prompt.stop_token_ids)
            history.append(("assistant", answer.strip()))


def _read_line() -> str | None:
    """The next line of the user; ``None`` at the end of input, ``/exit`` or Ctrl-C."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    return None if line == "/exit" else line


def _window(session: Session, token_ids: Sequence[int]) -> Sequence[int]:
    """The last tokens of a prompt that leave room for the answer, but at least half a context of them."""
    context_length = session.context_length
    kept = token_ids[-max(context_length - session.args.max_new_tokens, context_length // 2, 1) :]
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
        session = load(args, began_s)
        (chat if args.prompt == "chat" else complete)(session)
    except ValueError as error:  # what a person can put right, and it says how
        print(f"main.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
