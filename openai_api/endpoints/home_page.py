"""The page at ``/`` and its files: chat, tokens, shapes and the server's figures in a browser.

Owns the headers that keep it to itself: scripts, styles and requests of this server alone, nothing
inline, no frames, no markup made of strings. Knows nothing of the engine: the page is there while the
model loads. Runs on the event loop.
"""

from starlette.requests import Request
from starlette.responses import Response

from openai_api.errors import ApiError
from openai_api.page_files import PageFile, page_files

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def home_page(request: Request) -> Response:
    """200 with the page, or 304."""
    return _answer(request, page_files()["index.html"])


async def page_file(request: Request) -> Response:
    """200 with a script or a style of the page, or 304.

    Raises:
        ApiError: 404, no such file.
    """
    file = page_files().get(request.path_params["name"])
    if file is None:
        raise ApiError(404, "The page has no file of that name.", code="unknown_url")
    return _answer(request, file)


def _answer(request: Request, file: PageFile) -> Response:
    """A browser asks each time whether the file is still the same, so an upgrade is seen at once."""
    headers = {**SECURITY_HEADERS, "ETag": file.etag, "Cache-Control": "no-cache"}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
