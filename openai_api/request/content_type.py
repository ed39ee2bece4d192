"""What a request says of its body: which media type, in which characters, packed or not.

Owns the grammar of these headers. Insists on JSON, since a web page may post forms and plain text
anywhere without a preflight. Pure; on the event loop.
"""

import re

from starlette.datastructures import Headers

from openai_api.errors import ApiError

_CHARSETS = ("", "utf-8", "utf8")
_PARAMETER = re.compile(r';[ \t]*([^=;"]*)(?:=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*))?')


def check_content_type(headers: Headers) -> None:
    """Parameters other than ``charset`` are nobody's business; repeated headers must all be right.

    Raises:
        ApiError: 415, not JSON, not UTF-8, or compressed.
    """
    content_types = headers.getlist("content-type")
    if not content_types or not all(map(_is_json, content_types)):
        raise ApiError(
            415, "The request body must be sent as application/json, in UTF-8.", code="unsupported_media_type"
        )
    if any(coding.strip().lower() != "identity" for coding in headers.getlist("content-encoding")):
        raise ApiError(415, "The request body must not be compressed.", code="unsupported_media_type")


def _is_json(content_type: str) -> bool:
    media_type, semicolon, rest = content_type.partition(";")
    charsets = [
        value.strip().strip('"').lower()
        for name, value in _PARAMETER.findall(semicolon + rest)
        if name.strip().lower() == "charset"
    ]
    return media_type.strip().lower() == "application/json" and all(charset in _CHARSETS for charset in charsets)
