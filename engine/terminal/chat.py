"""A chat at the terminal: ``python main.py chat``.

Owns the commands, the history and the words around the answers, all of which go to stderr. Knows
neither how lines are read nor how tokens are chosen. The thread of the engine.
"""

import logging
import re
from dataclasses import dataclass, field

from engine.flags import is_text
from engine.outputs import FinishReason
from engine.terminal.answers import Answer, AnswerWriter
from engine.terminal.guard import say
from engine.terminal.messages import MessageReader
from gemma3.text.chat import Message

HELP = """\
/help   show this text
/reset  forget what was said
/exit   end; so does Ctrl-D
Ctrl-C  stop an answer, or clear a half-typed line
\"\"\"     begin a message of several lines, and end it; pasted lines are one message anyway
A space before a slash makes it the beginning of a message."""
_COMMAND = re.compile(r"/[A-Za-z?]*")  # a word with a second slash is a path, and so a message

log = logging.getLogger("gemma3")


@dataclass(slots=True)
class TerminalChat:
    """The whole history is rendered anew for each turn; what was computed is found in the cache."""

    writer: AnswerWriter
    history: list[Message] = field(default_factory=list)

    def run(self, reader: MessageReader) -> None:
        """Talk until the input ends, or ``/exit``.

        Raises:
            KeyboardInterrupt: Ctrl-C while nothing is answered and the input is no terminal.
            ValueError, OSError: standard input or output is closed.
        """
        self._greet()
        while (message := _next_message(reader)) is not None:
            word = message.split(maxsplit=1)[0] if message.strip() else ""
            if not (message.startswith("/") and _COMMAND.fullmatch(word)):
                if word:
                    self._answer(_as_text(message.strip()))
            elif word == "/exit":
                return
            else:
                self._obey(word)

    def _greet(self) -> None:
        engine = self.writer.engine
        log.info("Chatting with %s. /help lists the commands, /exit ends.", engine.loaded.chat_format.name)
        if not engine.info.is_instruction_tuned:
            log.info(
                "%s is a base model: it was taught to continue texts, not to answer. For answers: --model 270m-it",
                engine.info.model_id,
            )

    def _obey(self, command: str) -> None:
        if command == "/reset":
            self.history.clear()
            log.info("(forgotten)")
        elif command == "/help":
            say(HELP)
        else:
            say(f"({command} is no command; /help lists them)")

    def _answer(self, question: str) -> None:
        asked = [*self.history, Message("user", question)]
        try:
            prompt = self.writer.engine.loaded.render_chat(asked)
        except ValueError as error:  # this question, or the history with it, cannot be a prompt
            say(f"({error})")
            return
        answer = self.writer.write(
            self.writer.window(prompt.token_ids), stop=prompt.stop, stop_token_ids=prompt.stop_token_ids
        )
        self._tell_if_cut(answer)
        self.history = [*asked, Message("assistant", answer.text.strip())]

    def _tell_if_cut(self, answer: Answer) -> None:
        if answer.finish_reason is not FinishReason.LENGTH:
            return
        if answer.num_tokens < self.writer.max_tokens:
            log.info("(cut: the context is full; /reset makes room)")
        else:
            log.info("(cut after %d tokens; --max-tokens N allows more)", answer.num_tokens)


def _next_message(reader: MessageReader) -> str | None:
    """Ctrl-C at a terminal begins a new line."""
    while True:
        try:
            message = reader.read()
        except KeyboardInterrupt:
            if not reader.is_terminal:
                raise
            say("\n(/exit or Ctrl-D ends)")
        else:
            if message is None and reader.is_terminal:
                say("")
            return message


def _as_text(message: str) -> str:
    if is_text(message):
        return message
    say("(what is no UTF-8 in this message was replaced)")
    return message.encode(errors="surrogateescape").decode(errors="replace")
