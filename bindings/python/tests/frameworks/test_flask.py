"""What the Flask adapter adds to the promises of test_adapters.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import flask
import flask_login
import pytest
from flask import Flask, session
from flask.json.tag import TaggedJSONSerializer
from temporary_store import TemporaryStore

from session_server_store import SessionStoreError, Store
from session_server_store.flask import SessionServerStore, TaggedJson

DOWN = "redis://127.0.0.1:1?deadline=200ms"


@pytest.fixture
def url() -> Iterator[str]:
    with TemporaryStore() as temporary:
        yield temporary.url("timeout=90d")


def make_app(url: str, **config: Any) -> Flask:
    app = Flask(__name__)
    app.config.update(SESSION_SERVER_STORE_URL=url, **config)
    SessionServerStore(app)

    @app.post("/set")
    def set_keys() -> Any:
        session.update(flask.request.args.to_dict())
        return {}

    @app.get("/get")
    def get() -> Any:
        return dict(session)

    @app.get("/plain")
    def plain() -> Any:
        return {}

    return app


def test_tagged_json_keeps_types(url: str) -> None:
    app = make_app(url)
    values = {"pair": (1, 2), "bytes": b"\xff", "time": datetime(2026, 1, 2, tzinfo=timezone.utc)}

    @app.post("/put")
    def put() -> Any:
        session.update(values)
        flask.flash("saved", "info")
        return {}

    @app.get("/compare")
    def compare() -> Any:
        assert {key: session[key] for key in values} == values
        assert flask.get_flashed_messages(with_categories=True) == [("info", "saved")]
        return {}

    client = app.test_client()
    assert client.post("/put").status_code == 200
    assert client.get("/compare").status_code == 200


def test_init_app_and_factory(url: str) -> None:
    extension = SessionServerStore()
    apps = [Flask(f"app{n}") for n in range(2)]
    for app in apps:
        app.config["SESSION_SERVER_STORE_URL"] = url
        extension.init_app(app)
    with apps[0].app_context():
        first = extension.store
    with apps[1].app_context():
        assert extension.store is not first


def test_missing_url_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="SESSION_SERVER_STORE_URL"):
        SessionServerStore(Flask(__name__))


def test_open_store_instead_of_url(url: str) -> None:
    with Store(url) as store:
        app = Flask(__name__)
        extension = SessionServerStore(app, store)
        with app.app_context():
            assert extension.store is store


@pytest.mark.parametrize("config", [{"SESSION_COOKIE_DOMAIN": "a.example"}, {"SESSION_COOKIE_PATH": "/app"}])
def test_host_prefix_is_checked(url: str, config: dict[str, Any]) -> None:
    make_app(url, SESSION_COOKIE_NAME="__Host-sid")
    with pytest.raises(ValueError, match="__Host-sid"):
        make_app(url, SESSION_COOKIE_NAME="__Host-sid", **config)


def test_debug_cookie_is_not_secure(url: str) -> None:
    app = make_app(url)
    assert "Secure" in app.test_client().post("/set?a=1").headers["Set-Cookie"]
    app.debug = True
    assert "Secure" not in app.test_client().post("/set?a=1").headers["Set-Cookie"]


def test_lifetime_is_idle_timeout(url: str) -> None:
    app = make_app(url, PERMANENT_SESSION_LIFETIME=timedelta(minutes=7))
    client = app.test_client()
    client.post("/set?a=1")
    cookie = client.get_cookie("session")
    assert cookie is not None
    with Store(url) as store:
        stored = store.get(cookie.value, peek=True)
        assert stored is not None
        assert stored.expires is not None
        assert stored.expires - stored.last_seen == timedelta(minutes=7)


def test_nothing_is_read_before_the_view_needs_it() -> None:
    app = make_app(DOWN, SESSION_REFRESH_EACH_REQUEST=False)
    client = app.test_client()
    client.set_cookie("session", "A" * 128)
    assert client.get("/plain").status_code == 200
    assert client.get("/get").status_code == 503


def test_own_error_handler_is_used() -> None:
    app = make_app(DOWN)

    @app.errorhandler(SessionStoreError)
    def handle(error: SessionStoreError) -> Any:
        return {"error": error.name}, 503

    client = app.test_client()
    client.set_cookie("session", "A" * 128)
    for response in (client.get("/get"), app.test_client().post("/set?a=1")):
        assert (response.status_code, response.json) == (503, {"error": "UNAVAILABLE"})
        assert "Set-Cookie" not in response.headers


def test_failed_save_replaces_redirect_and_stream() -> None:
    app = make_app(DOWN)

    @app.post("/redirect")
    def redirect() -> Any:
        session["a"] = 1
        return flask.redirect("/elsewhere")

    @app.post("/stream")
    def stream() -> Any:
        session["a"] = 1
        return flask.Response(iter(["one", "two"]))

    for path in ("/redirect", "/stream"):
        response = app.test_client().post(path)
        assert response.status_code == 503
        assert "Location" not in response.headers
        assert "not logged out" in response.text


def test_value_that_json_lacks_is_500(url: str) -> None:
    app = make_app(url)

    @app.post("/bad")
    def bad() -> Any:
        session["a"] = object()
        return {}

    assert app.test_client().post("/bad").status_code == 500


def test_flask_login_user_is_principal(url: str) -> None:
    app = make_app(url)
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):  # type: ignore[misc]
        id = "7"

    manager.user_loader(lambda user_id: User() if user_id == "7" else None)

    @app.post("/login")
    def login() -> Any:
        flask_login.login_user(User())
        return {}

    @app.post("/logout")
    def logout() -> Any:
        flask_login.logout_user()
        return {}

    @app.get("/user")
    def user() -> Any:
        return {"id": flask_login.current_user.get_id()}

    client = app.test_client()
    client.post("/set?cart=3")
    planted = client.get_cookie("session")
    client.post("/login")
    assert client.get("/user").json == {"id": "7"}
    assert planted is not None
    with Store(url) as store:
        assert len(store.list("7")) == 1
        assert store.get(planted.value) is None
        logged_in = client.get_cookie("session")
        client.post("/logout")
        assert client.get("/user").json == {"id": None}
        assert store.list("7") == []
        assert logged_in is not None
        assert store.get(logged_in.value) is None


def test_renew_sets_principal(url: str) -> None:
    app = make_app(url)

    @app.post("/login")
    def login() -> Any:
        session.renew(principal="carol")  # type: ignore[attr-defined]
        return {}

    client = app.test_client()
    client.post("/login")
    client.post("/set?a=1")
    with Store(url) as store:
        assert len(store.list("carol")) == 1


def test_commands(url: str) -> None:
    app = make_app(url)
    client = app.test_client()
    client.post("/set?_user_id=7")
    runner = app.test_cli_runner()
    with Store(url) as store:
        (info,) = store.list("7")
        assert info.ref.hex() in runner.invoke(args=["sessions", "list", "7"]).output
        assert runner.invoke(args=["sessions", "sweep"]).output == "0 removed\n"
        assert runner.invoke(args=["sessions", "revoke", "7"]).output == "1 ended\n"
        assert store.list("7") == []


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, 2.5, None, True, 'ä{" t":1}', {"b": {}}]},
        {"a": (1, [2, (3,)])},
        {" t": [1, 2]},
        {"a": {" t": 1}, "b": [{" di": {}}]},
        {"a": {" t": 1, "x": 2}},
        {"a": b"\xff", "b": [{"c": datetime(2026, 1, 2, tzinfo=timezone.utc)}]},
        {"a": "\udcff"},
    ],
    ids=ascii,
)
def test_tagged_json_reads_what_flask_writes(value: Any) -> None:
    ours, flasks = TaggedJson(), TaggedJSONSerializer()

    expected = flasks.loads(flasks.dumps(value))
    assert ours.loads(ours.dumps(value)) == expected
    assert ours.loads(flasks.dumps(value).encode("utf-8", "surrogatepass")) == expected


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {1: "b"}}, {"a": float("nan")}, {"a": object()}], ids=repr)
def test_tagged_json_refuses_what_would_change(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        TaggedJson().dumps(value)
