"""A FastAPI application with login and a page of devices, on session_server_store.

    pip install './bindings/python[starlette]' fastapi uvicorn
    uvicorn --app-dir examples/python fastapi_app:app      # serves http://127.0.0.1:8000

SESSION_STORE names another store: with several workers, use lmdb:/dir.
"""

from __future__ import annotations

import hmac
import os
from datetime import datetime, timezone
from html import escape
from typing import Optional
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from session_server_store.starlette import SessionMiddleware, devices, end_device, revoke

# The demo prints the passwords; a real application has them hashed.
USERS = {"alice": "wonderland", "bob": "yellow-submarine"}

app = FastAPI(title="Devices", docs_url=None, redoc_url=None, debug=os.environ.get("DEBUG", "1") == "1")
app.add_middleware(SessionMiddleware, store=os.environ.get("SESSION_STORE", "memory:?timeout=14d"))


@app.get("/")
def home(request: Request) -> Response:
    return page(request, f"<h1>Hello, {escape(request.session.get('user_id', 'stranger'))}</h1>")


@app.get("/login")
def login_form(request: Request, problem: str = "") -> Response:
    form = """<h1>Log in</h1><form method="post"><p><label>Name <input name="user" required></label></p>
<p><label>Password <input name="password" type="password" required></label></p><button>Log in</button></form>"""
    return page(request, f"<p>{escape(problem)}</p>{form}")


@app.post("/login")
async def login(request: Request) -> Response:
    form = await read_form(request)
    user = form.get("user", "")
    if user not in USERS or not hmac.compare_digest(USERS[user].encode(), form.get("password", "").encode()):
        return RedirectResponse("/login?problem=Wrong+name+or+password.", 303)
    # The middleware gives the session a new id, and makes it one of the user's devices.
    request.session["user_id"] = user
    return RedirectResponse("/devices", 303)


@app.post("/logout")
async def logout(request: Request) -> Response:
    await read_form(request)
    request.session.clear()  # ends the session on the server
    return RedirectResponse("/", 303)


@app.get("/devices")
async def list_devices(request: Request) -> Response:
    user = request.session.get("user_id")
    if user is None:
        return RedirectResponse("/login", 303)
    rows = "".join(
        f"<tr><td>{escape(device.label or 'unknown')}</td><td>{format_time(device.authenticated)}</td>"
        f"<td>{'this device' if device.current else format_time(device.last_seen)}</td>"
        f'<td><form method="post"><input type="hidden" name="ref" value="{device.ref}"><button>End</button></form></td>'
        "</tr>"
        for device in await devices(request, user)
    )
    head = "<tr><th>Device</th><th>Logged in</th><th>Last seen</th><th></th></tr>"
    others = '<form method="post"><button>Log out my other devices</button></form>'
    return page(request, f"<h1>My devices</h1><table><thead>{head}</thead><tbody>{rows}</tbody></table>{others}")


@app.post("/devices")
async def end_devices(request: Request) -> Response:
    form = await read_form(request)
    user = request.session.get("user_id")
    if user is None:
        return RedirectResponse("/login", 303)
    if "ref" in form:
        await end_device(request, user, form["ref"])  # only one of this user's
    else:
        await revoke(request, user, except_current=True)
    return RedirectResponse("/devices", 303)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form of this site. SameSite=Lax has kept the cookie from those of others."""
    origin = request.headers.get("origin", "")
    if urlsplit(origin).netloc != request.url.netloc:
        raise HTTPException(403, "This form is not one of this site.")
    body = (await request.body())[:4096]
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def format_time(time: Optional[datetime]) -> str:
    return "never" if time is None else f"{time.astimezone(timezone.utc):%d %b, %H:%M} UTC"


def page(request: Request, body: str) -> HTMLResponse:
    if "user_id" in request.session:
        personal = """<a href="/devices">My devices</a><form method="post" action="/logout">
<button>Log out</button></form>"""
    else:
        personal = '<a href="/login">Log in</a>'
    return HTMLResponse(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Devices</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><header><b>fastapi_app</b><a href="/">Home</a>{personal}</header><main>{body}</main></body></html>""",
        headers={"Cache-Control": "no-store"},
    )


STYLE = """
:root { color-scheme: light dark; --line: #8885 }
body { margin: 0 auto; max-width: 44rem; padding: 0 1.25rem; font: 1rem/1.55 system-ui, sans-serif }
header { display: flex; gap: 1.25rem; align-items: center; min-height: 4rem; border-bottom: 1px solid var(--line) }
header b { margin-right: auto } h1 { font-size: 1.4rem } form { margin: 0 }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.25rem }
th, td { text-align: left; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line) }
tr > :last-child { text-align: right; padding-right: 0 }
button { font: inherit; cursor: pointer; padding: .25rem .8rem; border-radius: .4rem; border: 1px solid var(--line) }
"""
