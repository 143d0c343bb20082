"""``SessionMiddleware``: Django's, but a store that cannot answer is 503, and cookies stay.

Django's own middleware deletes the cookie of every session that it does not find, and turns a
failure into 500.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Optional

from django.conf import settings
from django.contrib.sessions import middleware
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template import TemplateDoesNotExist
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.utils.http import http_date

from .._adapter import RETRY_AFTER_SECONDS, check_cookie, http_status, logger
from .._ffi import SID_LEN
from ..cookies import cookie_values
from ..errors import SessionStoreError
from .engine import SessionStore, label_of, run, session_manager


class SessionMiddleware(middleware.SessionMiddleware):
    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        check_cookie(
            settings.SESSION_COOKIE_NAME,
            secure=cookie_is_secure(),
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
        )

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)
        response = await self.get_response(request)
        manager = session_manager()
        return await run(self.process_response, manager.reads_block or manager.writes_block, request, response)

    def process_request(self, request: HttpRequest) -> None:
        name = settings.SESSION_COOKIE_NAME
        keys = cookie_values(request.META.get("HTTP_COOKIE", ""), name)
        if name in request.COOKIES:
            keys.append(request.COOKIES[name])
        # Only keys of this length can be known.
        keys = sorted(dict.fromkeys(keys), key=lambda key: len(key) != SID_LEN)
        request.session = self.SessionStore(keys[0] if keys else None, other_keys=keys[1:])
        request.session.label = partial(label_of, request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> Optional[HttpResponse]:
        return unavailable(exception) if http_status(exception) else None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        session = getattr(request, "session", None)
        if not isinstance(session, SessionStore):
            return super().process_response(request, response)
        if session.failure is not None and http_status(session.failure) and response.status_code >= 500:
            # It was raised outside of the view, by another middleware, and has become a 500.
            return unavailable(session.failure) if response.status_code == 500 else response
        try:
            self._save(request, response, session)
        except SessionStoreError as error:
            if not http_status(error):
                raise
            response.close()
            return unavailable(error)
        return response

    def _save(self, request: HttpRequest, response: HttpResponseBase, session: SessionStore) -> None:
        # Before other calls, which access the session themselves.
        vary = session.accessed
        name = settings.SESSION_COOKIE_NAME
        if session.is_empty():
            # A request that found no session leaves the cookie: it may be the one that a parallel
            # login has just set.
            if session.flushed and name in request.COOKIES:
                response.delete_cookie(
                    name,
                    path=settings.SESSION_COOKIE_PATH,
                    domain=settings.SESSION_COOKIE_DOMAIN,
                    samesite=settings.SESSION_COOKIE_SAMESITE,
                )
                vary = True
        elif session.modified or settings.SESSION_SAVE_EVERY_REQUEST:
            # Like Django's middleware, which keeps the changes of a failed request out. But its
            # id may have changed, and the client knows only the old one.
            failed = response.status_code >= 500
            if not failed:
                try:
                    session.save()
                except UpdateError:
                    raise SessionInterrupted(
                        "The request's session was deleted before the request completed. The user may have logged"
                        " out in a concurrent request, for example."
                    ) from None
            if not failed or session.has_new_key:
                set_cookie(response, session)
                vary = True
        if vary:
            patch_vary_headers(response, ("Cookie",))


def cookie_is_secure() -> bool:
    """True outside of DEBUG, unless the settings say otherwise."""
    if settings.is_overridden("SESSION_COOKIE_SECURE"):
        return bool(settings.SESSION_COOKIE_SECURE)
    return not settings.DEBUG or settings.SESSION_COOKIE_NAME.startswith(("__Host-", "__Secure-"))


def set_cookie(response: HttpResponseBase, session: SessionStore) -> None:
    max_age = None if session.get_expire_at_browser_close() else session.get_expiry_age()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        session.session_key,
        max_age=max_age,
        expires=None if max_age is None else http_date(time.time() + max_age),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=cookie_is_secure() or None,
        httponly=settings.SESSION_COOKIE_HTTPONLY or None,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )


def unavailable(error: Exception) -> HttpResponse:
    """503, with the template ``503.html`` if there is one. No cookie changes."""
    logger.warning("session store: %s: %s", getattr(error, "name", ""), error)
    try:
        content = render_to_string("503.html")
    except TemplateDoesNotExist:
        content = "The session store cannot be reached. You are not logged out. Please try again in a moment."
    response = HttpResponse(content, status=http_status(error))
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    response["Cache-Control"] = "no-store"
    return response
