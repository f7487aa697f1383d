"""What the operator is told of the server is about the server."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from server.settings import ServerSettings
from server.status import traffic


@pytest.mark.parametrize("page", [b"<html>hello {</html>", b"\xff\xfe", b"# TYPE up gauge\nup 1\n", b""])
def test_another_program_on_the_private_port_is_no_gateway(page, tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert traffic(ServerSettings(keys=tmp_path, state=tmp_path, private_port=server.server_port)) is None
