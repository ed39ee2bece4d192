"""Every limit of the HTTP layer, in one frozen object.

Owns who may call, and how much and how long anything may take. What a request body may say (ranges
of fields) is in ``request``; how many requests may run or wait, and how long, is the engine's.
Immutable, so any thread may read it.
"""

from dataclasses import dataclass

MIB = 1024 * 1024


class OptionError(ValueError):
    """A flag, a file or the environment asks for something that cannot be.

    The text is one line for a person.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may call, and how much and how long anything may take.

    Deadlines are on the monotonic clock.

    Attributes:
        host: the bound address or name; it and the loopback names may stand in a Host header, with
            any port.
        allowed_hosts: further names and addresses for the Host header.
        allowed_origins: origins of web pages that may call, exact but for ``:*``, which stands for
            every port; they alone get CORS headers.
        api_keys: any one of these opens the server; empty: no key is asked for. Each is a caller of
            its own, with cached prefixes of its own.
        served_model_names: what clients may call the model, the first being its own name; empty: the
            engine's name for it alone.
        serves_any_model_name: every name is the model's, for clients that have a fixed one.
        max_connections: open ones. Another takes the place of the one that has been without a request
            for the longest time; if there is none, it gets 503.
        off_loop_bytes: bodies and texts larger than this are parsed and tokenised in a worker
            thread. 2 KiB of text take about 1 ms to tokenise and at most 6, the hop to a thread
            0.1 ms.
        heavy_bytes: those larger than this, on one of two threads for such work; such bodies count
            against ``max_bytes_of_bodies``, from their arrival until they are tokens.
        max_json_values: of one large body; room for 128 prompts of 2,048 token ids. An object, and
            each of its members, counts as 4 more.
        max_text_chars: of a text that need not fit into the context, as it is cut or only its
            tokens are wanted; 1 Mi characters that are made to be slow take 3 s.
        data_dir: the folder in which responses are kept; ``None``: in memory, until the end.
        max_stored_responses: in memory; the caller with the most bytes loses its oldest.
        max_stored_bytes: the same in bytes.
        max_stored_bytes_on_disk: the same in ``data_dir``.
        keep_alive_interval_s: a stream that is silent this long gets a comment line.
        header_timeout_s: from the first byte of a head, or the end of the answer before it, to its
            last; a new connection has it also for its first byte.
        write_timeout_s: when 64 KiB wait for a client, it must take all but 16 KiB of them within
            this time; and all that is left when its connection is closed.
        request_timeout_s: from a request's body to its last token.
        idle_timeout_s: a connection without a request is closed; longer than clients keep theirs,
            so that theirs wins.
        retry_after_s: what a 503 tells the client to wait.
    """

    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    served_model_names: tuple[str, ...] = ()
    serves_any_model_name: bool = False

    max_connections: int = 1024
    max_header_bytes: int = 16 * 1024
    max_body_bytes: int = 4 * MIB
    max_json_depth: int = 64
    max_json_values: int = 300_000
    max_bytes_of_bodies: int = 64 * MIB
    max_text_chars: int = MIB
    off_loop_bytes: int = 2 * 1024
    heavy_bytes: int = 64 * 1024

    data_dir: str | None = None
    max_stored_responses: int = 10_000
    max_stored_bytes: int = 64 * MIB
    max_stored_bytes_on_disk: int = 1024 * MIB

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    request_timeout_s: float = 600.0
    drain_timeout_s: float = 30.0
    idle_timeout_s: int = 60
    keep_alive_interval_s: float = 15.0
    retry_after_s: int = 5
