"""The HTML of login_app.py. Decides nothing and never uses the store.

All input is escaped. There is no script and no external resource, only one inline stylesheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from html import escape
from typing import Any, Optional

from session_server_store import Session, SessionInfo, Stats

Data = dict[str, Any]

STYLE = """
:root { color-scheme: light dark; --page: #f5f4f1; --card: #fff; --line: #dcd9d2; --text: #22211f; --soft: #6b675f;
  --accent: #1f5f8b; --on-accent: #fff; --bad: #a3262a }
@media (prefers-color-scheme: dark) { :root { --page: #181715; --card: #211f1d; --line: #3a3733; --text: #e9e6e0;
  --soft: #a39e95; --accent: #7fb8de; --on-accent: #14212b; --bad: #f0898c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 1rem/1.55 system-ui, sans-serif }
header, main { max-width: 44rem; margin: 0 auto; padding: 0 1.25rem }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; align-items: center; min-height: 4.5rem;
  padding-block: .75rem }
header b { margin-right: auto }
main > * { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem 1.5rem;
  margin: 0 0 1rem; overflow-x: auto }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem } h2 { font-size: 1rem; margin: 0 0 .5rem }
p { margin: .5rem 0 0 } a { color: var(--accent) } .soft { color: var(--soft) } .bad { color: var(--bad) }
code { font: .9em ui-monospace, monospace }
form { margin: 0 } label { display: block; margin: .75rem 0 } label span { display: block; color: var(--soft) }
input { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: .4rem;
  padding: .45rem .6rem; width: min(100%, 20rem) }
button { font: inherit; cursor: pointer; border-radius: .4rem; padding: .4rem .9rem; color: var(--on-accent);
  background: var(--accent); border: 1px solid var(--accent) }
button.quiet { color: var(--accent); background: none; padding: .15rem .7rem }
table { border-collapse: collapse; width: 100%; margin: .75rem 0 0 } table + form { margin-top: 1.25rem }
th, td { text-align: left; padding: .5rem .75rem .5rem 0; border-top: 1px solid var(--line) } th { font-weight: normal }
tr > :last-child { text-align: right; padding-right: 0 }
thead th { border: 0; padding-block: 0 .25rem; color: var(--soft) }
td, dd { font-variant-numeric: tabular-nums }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem; margin: 0 }
dt { color: var(--soft) } dd { margin: 0 }
"""

# For the Content-Security-Policy, which allows only this stylesheet.
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def home(data: Data, session: Optional[Session], ref: Optional[bytes], stats: Stats) -> str:
    greeting = f"Hello, {escape(data['user'])}" if "user" in data else "Hello, stranger"
    if session is None:
        yours = "<p>You have no session, and this page does not create one.</p>"
    else:
        expires = "never" if session.expires is None else f"{format_time(session.expires)} unless it is used"
        yours = definition_list(
            ("reference", f"<code>{short_ref(ref)}</code>"),
            ("version", str(session.version)),
            ("created", f"{format_time(session.created)}, {format_age(session.created, session.last_seen)}"),
            ("ends", expires),
        )
    counters = (f"{value:,}\N{NO-BREAK SPACE}{name}" for name, value in stats._asdict().items())
    body = f"""<section><h1>{greeting}</h1>{yours}</section>
<section><h2>The store</h2><p class="soft">{" · ".join(counters)}</p></section>"""
    return layout("Home", body, data)


def visits(data: Data) -> str:
    body = f"""<section><h1>Visit {int(data["visits"])}</h1>
<p>The count is on the server; your browser has only an id. However fast you reload, no visit is lost.</p>
</section>"""
    return layout("Visits", body, data)


def login(data: Data, user: str = "", problem: str = "") -> str:
    message = f'<p class="bad" role="alert">{escape(problem)}</p>' if problem else ""
    body = f"""<section><h1>Log in</h1>{message}
<form method="post" action="/login">{csrf_field(data)}
<label><span>Name</span><input name="user" value="{escape(user)}" autocomplete="username" required></label>
<label><span>Password</span><input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form></section>"""
    return layout("Log in", body, data)


def devices(data: Data, infos: Iterable[SessionInfo], this: Optional[bytes], now: datetime) -> str:
    rows = []
    for info in infos:
        end = '<form method="post" action="/devices/end">{}<input type="hidden" name="ref" value="{}">{}</form>'.format(
            csrf_field(data), info.ref.hex(), '<button class="quiet">End</button>'
        )
        last_seen = format_age(info.last_seen, now) + (", this device" if info.ref == this else "")
        rows.append(
            f"<tr><td>{escape(info.label or 'unknown')}</td><td>{format_time(info.authenticated or info.created)}</td>"
            f"<td>{last_seen}</td><td>{end}</td></tr>"
        )
    others = ""
    if len(rows) > 1:
        others = f"""<form method="post" action="/devices/end-others">{csrf_field(data)}
<button>Log out my other devices</button></form>"""
    body = f"""<section><h1>My devices</h1><table>
<thead><tr><th>Device</th><th>Logged in</th><th>Last seen</th><th></th></tr></thead>
<tbody>{"".join(rows)}</tbody></table>{others}</section>"""
    return layout("My devices", body, data)


def problem(title: str, text: str) -> str:
    return layout(title, f"<section><h1>{escape(title)}</h1><p>{escape(text)}</p></section>", None)


def layout(title: str, body: str, data: Optional[Data]) -> str:
    if data is None:  # an error page
        personal = ""
    elif "user" in data:
        personal = f"""<a href="/devices">My devices</a>
<form method="post" action="/logout">{csrf_field(data)}<button class="quiet">Log out</button></form>"""
    else:
        personal = '<a href="/login">Log in</a>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · login_app</title><style>{STYLE}</style></head>
<body><header><b>login_app</b><a href="/">Home</a><a href="/visits">Visits</a>{personal}</header>
<main>{body}</main></body></html>
"""


def csrf_field(data: Data) -> str:
    return f'<input type="hidden" name="csrf" value="{escape(data["csrf"])}">'


def definition_list(*pairs: tuple[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs) + "</dl>"


def short_ref(ref: Optional[bytes]) -> str:
    return f"{ref.hex()[:6]}…" if ref else "ended"


def format_time(time: datetime) -> str:
    return f"{time:%d %b, %H:%M:%S} UTC"


def format_age(time: datetime, now: datetime) -> str:
    """By the store's clock. A session that was used after ``now`` was also used "just now"."""
    passed = max(now - time, timedelta())
    minutes, seconds = divmod(int(passed.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min ago"
    if minutes:
        return f"{minutes} min ago"
    return f"{seconds} s ago" if seconds else "just now"
