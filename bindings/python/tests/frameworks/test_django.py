"""What the Django adapter adds to the promises of test_adapters.py."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sites import setup_django
from temporary_store import TemporaryStore

setup_django()

from django.contrib.auth import SESSION_KEY, get_user_model, update_session_auth_hash  # noqa: E402
from django.contrib.sessions.backends.base import UpdateError  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.test import AsyncClient, Client, RequestFactory, override_settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from session_server_store import Store  # noqa: E402
from session_server_store.django import SessionMiddleware, SessionStore, devices, revoke  # noqa: E402
from session_server_store.django.engine import session_manager  # noqa: E402

DOWN = "redis://127.0.0.1:1?deadline=200ms"


@pytest.fixture(autouse=True)
def url() -> Iterator[str]:
    with TemporaryStore() as temporary:
        url = temporary.url("timeout=30d")
        with override_settings(SESSION_SERVER_STORE_URL=url):
            yield url


@pytest.fixture
def alice() -> Any:
    return get_user_model().objects.get(username="alice")


def respond(view: Any, cookie: str = "") -> tuple[HttpRequest, HttpResponse]:
    """The middleware around a view."""
    request = RequestFactory().get("/", headers={"cookie": f"sid={cookie}"} if cookie else {})
    return request, SessionMiddleware(view)(request)


# Settings.


def test_override_settings_takes_effect() -> None:
    session = SessionStore()
    session["a"] = 1
    session.save()
    key = session.session_key
    with TemporaryStore() as other, override_settings(SESSION_SERVER_STORE_URL=other.url()):
        assert not SessionStore().exists(key)
    assert SessionStore().exists(key)


def test_serializer_setting_is_respected() -> None:
    session = SessionStore()
    session["time"] = "x"
    with override_settings(SESSION_SERIALIZER="test_django.ReversedJson"):
        session.save()
        assert SessionStore(session.session_key)["time"] == "x"
    # Like any engine of Django: what the serializer cannot read is an empty session.
    assert SessionStore(session.session_key).load() == {}


class ReversedJson:
    def dumps(self, obj: Any) -> bytes:
        import json

        return json.dumps(obj).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        import json

        return json.loads(data[::-1])


def ids(**settings: Any) -> list[str]:
    with override_settings(**settings):
        return [message.id for message in run_checks() if message.id.startswith("session_server_store")]


STOCK = ["django.contrib.sessions.middleware.SessionMiddleware"]
OWN = ["session_server_store.django.SessionMiddleware"]


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ([], {}),
        (["session_server_store.E001"], {"SESSION_SERVER_STORE_URL": ""}),
        (["session_server_store.E001"], {"SESSION_SERVER_STORE_URL": None}),
        (["session_server_store.E002"], {"SESSION_SERVER_STORE_URL": "nothing:"}),
        (["session_server_store.E002"], {"SESSION_SERVER_STORE_URL": "redis://h?timeot=1"}),
        (["session_server_store.E002"], {"SESSION_SERVER_STORE_CONFLICT": "merg"}),
        (["session_server_store.W001"], {"SESSION_SERVER_STORE_URL": "memory:", "DEBUG": False}),
        ([], {"SESSION_SERVER_STORE_URL": "memory:", "DEBUG": True}),
        (["session_server_store.W003"], {"SESSION_SERVER_STORE_URL": "redis://h?idle_timeout=1m"}),
        (["session_server_store.W002"], {"MIDDLEWARE": STOCK}),
        ([], {"SESSION_ENGINE": "django.contrib.sessions.backends.db", "SESSION_SERVER_STORE_URL": ""}),
    ],
)
def test_system_checks(expected: list[str], changed: dict[str, Any]) -> None:
    settings = {"SESSION_SERVER_STORE_URL": "redis://h", "MIDDLEWARE": OWN, "DEBUG": False}
    assert ids(**{**settings, **changed}) == expected


def test_check_message_has_no_password() -> None:
    with override_settings(SESSION_SERVER_STORE_URL="redis://user:hunter2@h?wrong=1"):
        assert "hunter2" not in str(run_checks())


@pytest.mark.parametrize(
    "wrong", [{"SESSION_COOKIE_DOMAIN": "a.example"}, {"SESSION_COOKIE_PATH": "/app"}, {"SESSION_COOKIE_SECURE": False}]
)
def test_host_prefix_is_checked(wrong: dict[str, Any]) -> None:
    with override_settings(SESSION_COOKIE_NAME="__Host-sid", DEBUG=True):
        SessionMiddleware(lambda request: HttpResponse())
        with override_settings(**wrong), pytest.raises(ValueError, match="__Host-sid"):
            SessionMiddleware(lambda request: HttpResponse())


@pytest.mark.parametrize(
    ("debug", "given", "secure"), [(False, None, True), (True, None, False), (False, False, False)]
)
def test_secure_by_default_outside_debug(debug: bool, given: Any, secure: bool) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session["a"] = 1
        return HttpResponse()

    settings = {"DEBUG": debug} if given is None else {"DEBUG": debug, "SESSION_COOKIE_SECURE": given}
    with override_settings(**settings):
        assert bool(respond(view)[1].cookies["sid"]["secure"]) is secure


# Expiry.


def saved(expiry: Any) -> SessionStore:
    session = SessionStore()
    session["a"] = 1
    session.set_expiry(expiry)
    session.save()
    return session


def seconds_left(session: SessionStore) -> float:
    with Store(session_manager_url()) as store:
        stored = store.get(session.session_key, peek=True)
        assert stored is not None
        assert stored.expires is not None
        return (stored.expires - stored.last_seen).total_seconds()


def session_manager_url() -> str:
    from django.conf import settings

    return str(settings.SESSION_SERVER_STORE_URL)


@pytest.mark.parametrize(
    ("expiry", "expected"), [(100, 100), (timedelta(seconds=100), 100), (None, 14 * 86400), (0, 14 * 86400)]
)
def test_set_expiry_is_idle_timeout(expiry: Any, expected: int) -> None:
    assert seconds_left(saved(expiry)) == pytest.approx(expected, abs=2)


def test_set_expiry_as_date_is_not_moved_by_reads() -> None:
    session = saved(timezone.now() + timedelta(hours=1))
    with override_settings(USE_TZ=True):
        later = timezone.now() + timedelta(minutes=61)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("django.utils.timezone.now", lambda: later)
            assert SessionStore(session.session_key).load() == {}
    assert not SessionStore().exists(session.session_key)


@pytest.mark.parametrize("expiry", [timedelta(seconds=-1), -5])
def test_set_expiry_in_the_past_ends_session(expiry: Any) -> None:
    session = saved(None)
    session.set_expiry(expiry)
    session.save()
    assert not SessionStore().exists(session.session_key)


def test_cookie_age_setting_is_idle_timeout() -> None:
    with override_settings(SESSION_COOKIE_AGE=50):
        assert seconds_left(saved(None)) == pytest.approx(50, abs=2)


def test_absolute_timeout_is_that_of_url(url: str) -> None:
    with TemporaryStore() as temporary, override_settings(SESSION_SERVER_STORE_URL=temporary.url("timeout=30s")):
        assert seconds_left(saved(None)) <= 30


def test_clearsessions_sweeps() -> None:
    session = SessionStore()
    session["a"] = 1
    session.set_expiry(-1)
    session.save()
    call_command("clearsessions")
    assert session_manager().store.stats().sessions == 0


# The middleware.


def test_rotated_id_reaches_client_with_error_page() -> None:
    session = saved(None)

    def view(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        request.session["b"] = 2
        return HttpResponse(status=500)

    _, response = respond(view, session.session_key)
    assert SessionStore(response.cookies["sid"].value).load() == {"a": 1}


def test_ended_session_is_400() -> None:
    session = saved(None)
    client = Client()
    client.cookies["sid"] = session.session_key

    def view(request: HttpRequest) -> HttpResponse:
        request.session["b"] = 2
        SessionStore().delete(request.session.session_key)
        return HttpResponse()

    from django.contrib.sessions.exceptions import SessionInterrupted

    with pytest.raises(SessionInterrupted):
        respond(view, session.session_key)


def test_failure_in_another_middleware_is_503() -> None:
    with override_settings(
        SESSION_SERVER_STORE_URL=DOWN,
        MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
        MIDDLEWARE=[
            "session_server_store.django.SessionMiddleware",
            "test_django.reading_middleware",
        ],
    ):
        client = Client(raise_request_exception=False)
        client.cookies["sid"] = "A" * 128
        response = client.get("/plain")
        assert (response.status_code, list(response.cookies)) == (503, [])


def reading_middleware(get_response: Any) -> Any:
    def respond(request: HttpRequest) -> HttpResponse:
        request.session.get("a")
        return get_response(request)

    return respond


def test_handled_failure_is_left_to_view() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        try:
            request.session["a"]
        except Exception:
            return HttpResponse("without session")
        raise AssertionError

    with override_settings(SESSION_SERVER_STORE_URL=DOWN):
        _, response = respond(view, "A" * 128)
    assert (response.status_code, response.content, list(response.cookies)) == (200, b"without session", [])


def test_503_template_is_used() -> None:
    loaders = [("django.template.loaders.locmem.Loader", {"503.html": "wait a moment"})]
    templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": loaders}}]
    with override_settings(SESSION_SERVER_STORE_URL=DOWN, TEMPLATES=templates):
        client = Client(raise_request_exception=False)
        client.cookies["sid"] = "A" * 128
        assert client.get("/get").content == b"wait a moment"


def test_save_every_request_touches() -> None:
    session = saved(None)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        _, response = respond(lambda request: HttpResponse(), session.session_key)
    assert response.cookies["sid"].value == session.session_key
    with Store(session_manager_url()) as store:
        stored = store.get(session.session_key, peek=True)
        assert stored is not None
        assert stored.version == 1


# SessionBase.


def test_create_makes_key_before_data() -> None:
    session = SessionStore()
    session.create()
    assert SessionStore().exists(session.session_key)
    assert SessionStore(session.session_key).load() == {}


def test_cycle_key_of_ended_session_has_no_data() -> None:
    session = saved(None)
    session["a"]
    SessionStore().delete(session.session_key)
    session.cycle_key()
    assert dict(session.items()) == {}
    assert SessionStore(session.session_key).load() == {}


def test_save_of_ended_session_raises() -> None:
    session = saved(None)
    SessionStore().delete(session.session_key)
    session["b"] = 1
    with pytest.raises(UpdateError):
        session.save()


def test_save_twice_keeps_keys_of_others() -> None:
    session = saved(None)
    other = SessionStore(session.session_key)
    other["b"] = 2
    session["c"] = 3
    other.save()
    session.save()
    session["d"] = 4
    session.save()
    assert SessionStore(session.session_key).load().keys() == {"a", "b", "c", "d"}


def test_clear_before_read_removes_all() -> None:
    session = saved(None)
    again = SessionStore(session.session_key)
    again.clear()
    again["b"] = 2
    again.save()
    assert SessionStore(session.session_key).load() == {"b": 2}


@pytest.mark.skipif(not hasattr(SessionStore, "aget"), reason="since Django 5.1")
def test_async_methods() -> None:
    async def use() -> None:
        session = SessionStore()
        await session.aset("a", 1)
        await session.asave()
        first = session.session_key
        await session.acycle_key()
        assert not await session.aexists(first)
        assert await SessionStore(session.session_key).aget("a") == 1
        await session.aflush()
        assert session.session_key is None
        await SessionStore.aclear_expired()

    asyncio.run(use())


def test_async_view() -> None:
    async def use() -> None:
        client = AsyncClient()
        assert (await client.post("/set?a=1")).status_code == 200
        assert (await client.get("/get")).json() == {"a": "1"}

    asyncio.run(use())


# Users.


def test_force_login_sets_principal(alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    assert client.get("/get").json()[SESSION_KEY] == str(alice.pk)
    client.get("/get")
    (device,) = devices(alice)
    assert not device.current


def test_second_login_of_same_user_keeps_key(alice: Any) -> None:
    """As with Django's own engines. A view that asks for the password again calls renew."""
    client = Client()
    client.post("/login?user=alice")
    first = client.cookies["sid"].value
    client.post("/login?user=alice")
    assert client.cookies["sid"].value == first
    client.post("/renew?again=yes")
    assert client.cookies["sid"].value != first
    assert len(devices(alice)) == 1


def test_password_change_keeps_this_device(alice: Any) -> None:
    client, other = Client(), Client()
    for each in (client, other):
        each.post("/login?user=alice")
    request = RequestFactory().post("/")
    request.session, request.user = client.session, alice
    old = request.session.session_key
    update_session_auth_hash(request, alice)
    request.session.save()
    assert request.session.session_key != old
    assert revoke(alice, except_request=request) == 1
    client.cookies["sid"] = request.session.session_key
    assert client.get("/get").json()[SESSION_KEY] == str(alice.pk)
    assert other.get("/get").json() == {}


def test_revoke_logs_out_everywhere(alice: Any) -> None:
    clients = [Client() for _ in range(3)]
    for client in clients:
        client.post("/login?user=alice")
    assert revoke(alice) == 3
    assert [client.get("/get").json() for client in clients] == [{}] * 3


def test_devices_page(alice: Any) -> None:
    client, other = Client(), Client()
    for each in (client, other):
        each.post("/login?user=alice")
    page = client.get("/my-devices/").content.decode()
    refs = re.findall('name="ref" value="([0-9a-f]{64})"', page)
    assert len(refs) == 2
    assert page.count("this device") == 1
    (this,) = (device.ref for device in devices(alice, _request(client)) if device.current)
    (end,) = (ref for ref in refs if ref != this)
    assert client.post("/my-devices/", {"ref": end}).status_code == 302
    assert other.get("/get").json() == {}
    other.post("/login?user=alice")
    client.post("/my-devices/")
    assert other.get("/get").json() == {}
    assert client.get("/get").json()
    assert Client().get("/my-devices/").status_code == 302  # to the login


def _request(client: Client) -> HttpRequest:
    request = RequestFactory().get("/")
    request.session = client.session
    return request


def test_admin_action_logs_out_everywhere(alice: Any) -> None:
    admin = get_user_model().objects.create_superuser("admin")
    try:
        client, other = Client(), Client()
        client.force_login(admin)
        other.post("/login?user=alice")
        form = {"action": "log_out_everywhere", "_selected_action": [alice.pk, admin.pk]}
        response = client.post("/admin/auth/user/", form, follow=True)
        assert "1 session was ended" in response.content.decode()
        assert other.get("/get").json() == {}
        assert client.get("/admin/auth/user/").status_code == 200
    finally:
        admin.delete()


def _use_memory(results: Any) -> None:
    session = SessionStore()
    session["a"] = 1
    session.save()
    results.put(SessionStore(session.session_key).load())


def test_memory_store_in_process_of_parallel_test_runner() -> None:
    with override_settings(SESSION_SERVER_STORE_URL="memory:parallel"):
        saved(None)
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=_use_memory, args=(results,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert results.get(timeout=60) == {"a": 1}
