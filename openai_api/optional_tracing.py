"""Whether requests are told to a collector.

Owns the words for what is not installed. What imports OpenTelemetry is ``tracing``, and nothing
imports that before this was asked for it. Main thread, before the event loop runs.
"""

from typing import TYPE_CHECKING

from openai_api.settings import OptionError

if TYPE_CHECKING:
    from openai_api.tracing import Tracing


def open_tracing(endpoint: str | None) -> "Tracing | None":
    """What tells the collector at ``endpoint`` of requests; ``None``: nothing is told or imported.

    Raises:
        OptionError: the packages that tell are not installed.
    """
    if endpoint is None:
        return None
    try:
        from openai_api.tracing import Tracing
    except ModuleNotFoundError as error:
        raise OptionError(
            f"--otlp-traces-endpoint needs the package {error.name}: pip install 'gemma3-270m-server[otel]'"
        ) from None
    return Tracing(endpoint)
