"""The bytes of one connection on their way to the parser.

Owns how much of them is parsed at a time, and what happens where the parser stops: at a head that
offers another protocol. Knows no limits and no answers. On the event loop.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# A request may be 30 bytes long and takes 4 KiB when it waits: what was sent in advance is parsed
# as the answers go out, and not before.
PIECE_BYTES = 2048


class RequestBytes:
    """What the client has sent and ``protocol``, whose parser is used, has not seen yet; mutable.

    Attributes:
        num_overhead: bytes parsed since this was set to 0. The parser keeps what has no end to
            itself, such as a header.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self.num_overhead = 0
        self._protocol = protocol
        self._unparsed = memoryview(b"")

    def add(self, data: bytes) -> None:
        """Bytes from the client, behind those before."""
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)

    def parse(self) -> None:
        """Parse until all is parsed or a request waits for the answers before it.

        Raises:
            HttpParserError: it is no HTTP, or a method of the protocol raised the ``__context__``.
        """
        while self._unparsed and not self._protocol.pipeline:
            self._parse_piece(self._unparsed[:PIECE_BYTES])

    @property
    def num_waiting(self) -> int:
        """Bytes that are not parsed yet."""
        return len(self._unparsed)

    def _parse_piece(self, piece: memoryview) -> None:
        self.num_overhead += len(piece)
        self._unparsed = self._unparsed[len(piece) :]
        try:
            self._protocol.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as offer:
            rest = piece[offer.args[0] :]
            self._unparsed = memoryview(bytes(rest) + bytes(self._unparsed))
            self._parse_without_offer()

    def _parse_without_offer(self) -> None:
        """A server may ignore the offer: the same head once more, as if it had not been made.

        To another parser, as this one takes nothing behind a request that asks to close.
        """
        protocol, parser = self._protocol, self._protocol.parser
        line = parser.get_method() + b" " + protocol.url + b" HTTP/" + parser.get_http_version().encode()
        headers = [name + b": " + value for name, value in protocol.headers if name != b"upgrade"]
        protocol.parser = httptools.HttpRequestParser(protocol)
        protocol.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        protocol.parser.feed_data(b"\r\n".join([line, *headers, b"", b""]))
