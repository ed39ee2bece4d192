"""A form with one file in it, as ``multipart/form-data``, read as it comes.

Owns what of the form is kept: a few short fields in memory, the file's bytes handed on at once.
python-multipart has the grammar. Knows neither HTTP nor where the bytes go. Event loop.
"""

from collections.abc import Callable

from python_multipart import MultipartParser
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import parse_options_header

from openai_api.errors import ApiError, invalid_value

MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024
MAX_HEAD_BYTES = 8 * 1024
MAX_FILENAME_CHARS = 255


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts of a form. Raises: ApiError 415, it is no form that has a file."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        message = "The request body must be sent as multipart/form-data, with a boundary."
        raise ApiError(415, message, code="unsupported_media_type")
    return boundary


class FormWithFile:
    """``fields`` are complete, and ``filename`` is known, when ``end`` has returned."""

    def __init__(self, boundary: bytes, write: Callable[[bytes], None]) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._write = write
        self._head = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = bytearray()
        self._field: str | None = None
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_head,
                "on_part_data": self._on_data,
                "on_part_end": self._on_end,
                "on_end": self._on_form_end,
            },
        )

    def feed(self, data: bytes) -> None:
        """The next bytes of the body.

        Raises:
            ApiError: 400, it is no such form, or has more in it than is kept.
        """
        try:
            self._parser.write(data)
        except MultipartParseError:
            raise _malformed() from None

    def end(self) -> None:
        """The body has ended. Raises ``ApiError`` 400 if the form has not, or has no file."""
        if not self._is_complete:
            raise _malformed()
        if self.filename is None:
            raise invalid_value("file", "'file' is missing: the file's bytes, as a part with a filename.")

    def _begin(self) -> None:
        self._headers, self._num_head_bytes, self._field = {}, 0, None
        self._name, self._value = b"", bytearray()

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._count(end - start)

    def _count(self, num_bytes: int) -> None:
        self._num_head_bytes += num_bytes
        if self._num_head_bytes > MAX_HEAD_BYTES:
            raise _malformed()

    def _on_header(self) -> None:
        self._headers[self._name.lower()] = bytes(self._value)
        self._name, self._value = b"", bytearray()

    def _on_head(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            if name != "file" or self.filename is not None:
                raise invalid_value("file", "A form has one file, named 'file'.")
            self.filename = options[b"filename"].decode("utf-8", "replace")[:MAX_FILENAME_CHARS]
            return
        if name in self.fields or len(self.fields) == MAX_FIELDS:
            raise invalid_value(None, f"A form has at most {MAX_FIELDS} fields, each once.")
        self._field = name
        self.fields[name] = ""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise invalid_value(self._field, f"A field of a form has at most {MAX_FIELD_BYTES} bytes.")

    def _on_end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._value.decode("utf-8", "replace")

    def _on_form_end(self) -> None:
        self._is_complete = True


def _malformed() -> ApiError:
    return ApiError(400, "The request body is not a whole multipart/form-data form.", code="invalid_form")
