"""What lets a shell complete the commands and flags of ``gemma3-server``, written by shtab.

Owns the tree of all programs' parsers, which nothing else needs: a command line belongs to one of
them. Main thread.
"""

import argparse
from collections.abc import Sequence

import shtab

from engine.terminal.guard import write_output
from engine.terminal.program import text_parser
from openai_api import ask, command_line, doctor
from openai_api.batch import command as batch

# Flags whose value is the name of a file, or may be.
_FILES = {"--model", "--chat-template", "--schema", "--output", "--api-key-file", "--uds"}


def print_completion(words: Sequence[str], program: str) -> int:
    """Write the script for a shell to stdout; the exit status.

    Raises:
        ValueError: ``words`` are not the name of one shell that is known.
    """
    if len(words) != 1 or words[0] not in shtab.SUPPORTED_SHELLS:
        raise ValueError(f"--print-completion takes one of {', '.join(shtab.SUPPORTED_SHELLS)}")
    write_output(shtab.complete(_all_programs(program), shell=words[0]) + "\n")
    return 0


def _all_programs(program: str) -> argparse.ArgumentParser:
    """Commands as subparsers, and beside them the flags of a text, whose words no shell can know."""
    whole = argparse.ArgumentParser(prog=program, add_help=False)
    text = text_parser(program)
    _copy_flags(text, whole)
    commands = whole.add_subparsers()
    parsers = {"chat": text} | {
        name: module.flag_parser(program)
        for name, module in {"serve": command_line, "ask": ask, "batch": batch, "doctor": doctor}.items()
    }
    for name, parser in parsers.items():
        _copy_flags(parser, commands.add_parser(name, add_help=False, help=parser.description))
    return whole


def _copy_flags(source: argparse.ArgumentParser, target: argparse.ArgumentParser) -> None:
    for action in source._actions:
        if action.option_strings:
            if _FILES.intersection(action.option_strings):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            target._add_action(action)
