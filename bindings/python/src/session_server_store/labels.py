"""A label for the list of a user's devices. Knows no store and no framework."""

from __future__ import annotations

import re
from typing import Final, Optional

# In this order: Edge and Opera also call themselves Chrome, Chrome also calls itself Safari.
_BROWSERS: Final = (
    ("Edge", r"\bEdg(?:e|A|iOS)?/"),
    ("Opera", r"\b(?:OPR|Opera)/"),
    ("Samsung Internet", r"\bSamsungBrowser/"),
    ("Firefox", r"\b(?:Firefox|FxiOS)/"),
    ("Chrome", r"\b(?:Chrome|CriOS|HeadlessChrome)/"),
    ("Safari", r"\bSafari/"),
    ("curl", r"^curl/"),
)
_SYSTEMS: Final = (
    ("iPhone", r"\biPhone\b"),
    ("iPad", r"\biPad\b"),
    ("Android", r"\bAndroid\b"),
    ("Windows", r"\bWindows\b"),
    ("macOS", r"\bMac OS X\b|\bMacintosh\b"),
    ("ChromeOS", r"\bCrOS\b"),
    ("Linux", r"\bLinux\b"),
)


def device_label(user_agent: Optional[str], address: Optional[str]) -> Optional[str]:
    """What a user recognizes a device by. None if nothing is known of it.

    >>> device_label("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "127.0.0.1")
    'Firefox on Linux, 127.0.0.1'
    """
    agent = user_agent or ""
    browser, system = _first(_BROWSERS, agent), _first(_SYSTEMS, agent)
    name = " on ".join(filter(None, (browser, system))) or ("Unknown browser" if agent else "")
    return ", ".join(filter(None, (name, (address or "")[:64]))) or None


def _first(names: tuple[tuple[str, str], ...], agent: str) -> Optional[str]:
    return next((name for name, pattern in names if re.search(pattern, agent)), None)
