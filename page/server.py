"""The page's server: on this machine alone, with the library's own HTTP, and no file of a visitor.

A browser decodes what is dropped on the page and sends bytes of pixels, so that no hostile file
is ever opened here.
"""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.errors import UserError, in_a_line

LARGEST = 1_000_000  # bytes of a request: a picture of 256 x 256 takes a tenth
HERE = Path(__file__).parent
HOSTS = {"localhost", "127.0.0.1"}
POLICY = (  # nothing from elsewhere: what a report shows is in its own file
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-src 'self'"
)
OF_REPORTS = (  # whose script, style and figures are in their own text
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
Answer = Callable[[dict], dict]


class Server(ThreadingHTTPServer):
    """Answers the page: `answers` by path, and the reports of studies."""

    daemon_threads = True

    def __init__(self, port: int, answers: dict[str, Answer], reports: dict[str, Path]):
        super().__init__(("127.0.0.1", port), Handler)
        self.answers, self.reports = answers, reports

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 30  # seconds that a visitor may take for a request

    def do_GET(self) -> None:
        if not self.is_ours():
            return
        path = unquote(urlsplit(self.path).path)
        if path in FILES:
            name, kind = FILES[path]
            self.send(200, (HERE / name).read_bytes(), kind)
        elif path.startswith("/report/") and path.removeprefix("/report/") in self.server.reports:
            report = self.server.reports[path.removeprefix("/report/")]
            self.send(200, report.read_bytes(), "text/html; charset=utf-8", OF_REPORTS)
        else:
            self.send_error_line(404, "there is no such page")

    def do_POST(self) -> None:
        if not self.is_ours():
            return
        answer = self.server.answers.get(self.path)
        if answer is None:
            self.send_error_line(404, "there is no such page")
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST:
            self.send_error_line(413, f"a request may have {LARGEST:,} bytes at most")
            return
        try:
            request = json.loads(self.rfile.read(length))
            if not isinstance(request, dict):
                raise UserError("a request is an object of names and values")
            content = answer(request)
        except (ValueError, RecursionError) as error:  # UserError is a ValueError
            sentence = str(error) if isinstance(error, UserError) else "the request is not JSON"
            self.send_error_line(400, in_a_line(sentence))
            return
        self.send(200, json.dumps(content).encode(), "application/json")

    def is_ours(self) -> bool:
        """Refuses requests that other pages make a browser send here."""
        host = (self.headers.get("Host") or "").rpartition(":")[0]
        origin = self.headers.get("Origin")
        if host in HOSTS and (origin is None or urlsplit(origin).hostname in HOSTS):
            return True
        self.send_error_line(403, "only this machine is answered")
        return False

    def send_error_line(self, code: int, sentence: str) -> None:
        self.close_connection = True
        self.send(code, json.dumps({"error": sentence}).encode(), "application/json")

    def send(self, code: int, body: bytes, kind: str, policy: str = POLICY) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args) -> None:
        """Nothing: the page is used, not watched."""
