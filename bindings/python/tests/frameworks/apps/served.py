"""A site of sites.py as an application for servers, ``served:application``.

SITE names the framework, and SESSION_STORE is the URL. Responses have the process id of their
worker.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sites

URL = os.environ["SESSION_STORE"]
WORKER = "X-Worker"


def with_pid_wsgi(application: Any) -> Any:
    def respond(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, error: Any = None) -> Any:
            return start_response(status, [*headers, (WORKER, str(os.getpid()))], error)

        return application(environ, start)

    return respond


def with_pid_asgi(application: Any) -> Any:
    async def respond(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_pid(message: Any) -> None:
            if message["type"] == "http.response.start":
                pid = (WORKER.lower().encode(), str(os.getpid()).encode())
                message = {**message, "headers": [*message.get("headers", []), pid]}
            await send(message)

        await application(scope, receive, send_with_pid)

    return respond


def make_django() -> None:
    from django.conf import settings

    # In a thread, because uvicorn imports applications in its event loop, where Django refuses to
    # use a database.
    thread = threading.Thread(target=sites.setup_django)
    thread.start()
    thread.join()
    settings.SESSION_SERVER_STORE_URL = URL


def make(name: str) -> Any:
    if name == "flask":
        return with_pid_wsgi(sites.flask_app(URL))
    if name == "starlette":
        return with_pid_asgi(sites.starlette_app(URL))
    make_django()
    if name == "django":
        from django.core.wsgi import get_wsgi_application

        return with_pid_wsgi(get_wsgi_application())
    from django.core.asgi import get_asgi_application

    return with_pid_asgi(get_asgi_application())


application = make(os.environ["SITE"])
