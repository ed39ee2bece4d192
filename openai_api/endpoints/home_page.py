"""The page at ``/``: how to call this server.

Owns plain HTML without scripts or anything from elsewhere, and the headers that keep it so. Knows
nothing of the engine: the page is there while the model loads. Runs on the event loop.
"""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gemma 3 270M</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }
pre { background: #f3f3f3; color: #222; padding: 1rem; overflow-x: auto; }
</style>
</head>
<body>
<h1>Gemma 3 270M</h1>
<p>This is a local server with OpenAI's API.
Use any OpenAI client with this address and <code>/v1</code> as its base URL:</p>
<pre>curl BASE/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{"model": "MODEL", "messages": [{"role": "user", "content": "Hello"}]}'</pre>
<pre>from openai import OpenAI

client = OpenAI(base_url="BASE/v1", api_key="none")
answer = client.chat.completions.create(
    model="MODEL",
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)</pre>
<p><code>GET /v1/models</code> names the model, <code>GET /v1/capabilities</code> every request field,
<code>GET /openapi.json</code> describes all of it.</p>
</body>
</html>
"""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


async def home_page(_request: Request) -> Response:
    """200 with a static page in UTF-8; its headers forbid scripts and frames."""
    return HTMLResponse(PAGE, headers=SECURITY_HEADERS)
