"""Flags of the command line that choose the model and how it computes, and numbers that name their range.

Owns the words of these flags; what is allowed comes from ``precision`` and ``sampling_params``. Knows no program: each adds
flags of its own. Runs once, before anything is loaded.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import fields

from engine.engine_options import EngineOptions
from engine.precision import QUANTIZATIONS
from engine.sampling_params import Setting
from gemma3.checkpoints.checkpoint import DTYPES

# ``max_model_len=9`` and ``dtype='x'`` in an error of the engine, with the comma or the stop behind the value left out.
_FIELD = re.compile(rf"\b({'|'.join(each.name for each in fields(EngineOptions))})=")


def is_text(text: str) -> bool:
    """Python gives bytes that it cannot decode, of arguments and of our standard input, as lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def with_flag_names(message: str) -> str:
    """An error of the engine, which names the fields of ``EngineOptions``, in the words of a command line."""
    return _FIELD.sub(lambda match: f"--{match[1].replace('_', '-')} ", message)


def add_model_flags(parser: argparse._ActionsContainer) -> None:
    """``--model``, ``--chat-template`` and what says how to compute, named as in ``EngineOptions``."""
    parser.add_argument(
        "--model",
        help="Use these weights: a directory, a .gguf file, OWNER/NAME on the Hub, '270m' or '270m-it' (default: those "
        "found first beside the program, in the Hub's cache, in the weights package).",
    )
    parser.add_argument(
        "--chat-template",
        metavar="FORM",
        help="Write conversations as Gemma's turns (gemma), as a plain transcript (transcript), or by the Jinja template "
        "in the file of this name (default: as the checkpoint says).",
    )
    parser.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        default="auto",
        help="Compute with int8 or int4 weights on the native CPU core, or on torch (none); auto (default) is int8 on "
        "a CPU unless --dtype is given.",
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", *DTYPES),
        default="auto",
        help="Compute in this type on torch; auto (default) is bfloat16.",
    )
    parser.add_argument(
        "--device",
        type=_device,
        default="auto",
        help="Compute on cpu, cuda or cuda:N; auto (default) is the CPU, and a GPU only where the native core cannot be used.",
    )
    parser.add_argument(
        "--threads", type=number(count(1_024)), metavar="N", help="Use N CPU threads (default: one per core)."
    )


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not auto, cpu, cuda or cuda:N")
    return text


def count(most: int) -> Setting:
    """An integer from 1 to ``most``."""
    return Setting(kind=int, default=None, low=1, high=most, does="")


def number(setting: Setting) -> Callable[[str], float]:
    """An argparse type that names the range when a value is outside it."""

    def convert(text: str) -> float:
        try:
            value = setting.kind(text)
            setting.check("", value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:60]!r} is not {setting.allowed}") from None
        return value

    return convert
