"""An HTTP client with a cookie jar, for the sites of sites.py."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import Future, ThreadPoolExecutor
from http.cookies import SimpleCookie
from typing import Any, Optional
from urllib.parse import urlencode

import hold

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Response:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read().decode()
        self.cookies: SimpleCookie = SimpleCookie()
        for value in self.headers.get_all("Set-Cookie", []):
            self.cookies.load(value)

    @property
    def json(self) -> Any:
        assert self.status == 200, f"{self.status}: {self.body[:500]}"
        return json.loads(self.body)

    @property
    def varies(self) -> bool:
        return "cookie" in ", ".join(self.headers.get_all("Vary", [])).lower()


class Browser:
    def __init__(self, port: int, cookie: str, sid: str = "", agent: str = FIREFOX) -> None:
        self.port = port
        self.cookie = cookie
        self.sid = sid
        self.agent = agent

    def copy(self) -> Browser:
        """Another client that knows the present cookie."""
        return Browser(self.port, self.cookie, self.sid, self.agent)

    def get(self, path: str, **query: Any) -> Response:
        return self.request("GET", path, query)

    def post(self, path: str, **query: Any) -> Response:
        return self.request("POST", path, query)

    def request(self, method: str, path: str, query: dict[str, Any], cookie_header: Optional[str] = None) -> Response:
        headers = {"User-Agent": self.agent}
        if cookie_header is None and self.sid:
            cookie_header = f"{self.cookie}={self.sid}"
        if cookie_header:
            headers["Cookie"] = cookie_header
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=hold.HANG_SECONDS)
        try:
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), headers=headers)
            response = Response(connection.getresponse())
        finally:
            connection.close()
        morsel = response.cookies.get(self.cookie)
        if morsel is not None:
            ended = morsel["max-age"] == "0" or "1970" in morsel["expires"]
            self.sid = "" if ended else morsel.value
        return response

    def held(self, path: str, **query: Any) -> HeldRequest:
        """Sends a request whose view waits until it is released."""
        return HeldRequest(self, path, query)


class HeldRequest:
    """The browser's cookie is that of the time when the request was sent."""

    _numbers = iter(range(1_000_000))

    def __init__(self, browser: Browser, path: str, query: dict[str, Any]) -> None:
        name = f"hold-{next(self._numbers)}"
        self._hold = hold.new(name)
        self._pool = ThreadPoolExecutor(1)
        self.browser = browser.copy()
        self._answer: Future[Response] = self._pool.submit(self.browser.post, path, hold=name, **query)
        assert self._hold.reached.wait(hold.HANG_SECONDS), "the request has not reached its view"

    def release(self) -> Response:
        self._hold.released.set()
        try:
            return self._answer.result(hold.HANG_SECONDS)
        finally:
            self._pool.shutdown()
