"""The exceptions of the ``gemma3`` package.

Every message is one line that names the field or file, the value, and what is allowed::

    Gemma3Error
     +-- ConfigError            a config.json (or GGUF metadata) this package cannot run
     +-- CheckpointError        a weight file that is damaged, incomplete or of another model
     |    +-- GGUFError         the same, found while reading a GGUF file
     +-- WeightsNotFoundError   nothing to load: the path, repository or package is not there
     |    +-- GatedRepoError    the repository exists, but its licence must be accepted first
     +-- TokenizerError         a tokenizer file that cannot be used
     +-- DeviceError            a device this machine does not have
     +-- ChatTemplateError      a chat template that cannot be used
     +-- NoMemoryError          a limit of this process or machine that is too low for the model
     +-- ChatError              messages that no chat prompt can be made of

All of them are ``ValueError``: the caller gave something that cannot be used.
"""


class Gemma3Error(ValueError):
    """Base of every error this package raises on purpose."""


class ConfigError(Gemma3Error):
    """The configuration describes a model that is not Gemma 3 text, or an absurd one."""


class CheckpointError(Gemma3Error):
    """A weight file is damaged, incomplete, or belongs to another model."""


class GGUFError(CheckpointError):
    """A GGUF file is malformed, truncated, or uses a type this reader does not know."""


class WeightsNotFoundError(Gemma3Error):
    """No weights were found; the message says how to get them."""


class GatedRepoError(WeightsNotFoundError):
    """The Hub repository is gated; the message lists the steps to get access."""


class TokenizerError(Gemma3Error):
    """A tokenizer file is missing, damaged, or of another model."""


class ChatTemplateError(Gemma3Error):
    """A chat template is missing, is none, or fails for the simplest conversation."""


class ChatError(Gemma3Error):
    """A list of chat messages cannot be rendered. ``param`` names the argument that is wrong."""

    def __init__(self, message: str, *, param: str = "messages") -> None:
        super().__init__(message)
        self.param = param


class DeviceError(Gemma3Error):
    """The device asked for is not there."""


class NoMemoryError(Gemma3Error):
    """The system does not give this process the memory that loading needs."""
