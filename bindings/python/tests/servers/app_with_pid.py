"""The example application with a response header that has the process id of the worker."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional

from wsgi import application as login

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    def begin(status: str, headers: list[tuple[str, str]], error: Optional[Any] = None) -> Callable[[bytes], object]:
        return start_response(status, [*headers, ("X-Worker", str(os.getpid()))], error)

    return login(environ, begin)
