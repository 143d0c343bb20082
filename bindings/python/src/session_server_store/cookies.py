"""Reads the Cookie header in applications whose framework does not. Knows nothing of stores.

http.cookies is not used: one malformed cookie, perhaps of another application on the same domain,
makes it drop the cookies behind it or raise.
"""

from __future__ import annotations


def cookie_values(header: str, name: str) -> list[str]:
    """The values of every cookie with this name, in the order of the header, without duplicates.

    A browser sends several if they were set for different paths or domains. Look up each of them,
    so that an ended session does not hide a living one. Never raises.

    >>> cookie_values('theme="dark; sid=ended; sid=living', "sid")
    ['ended', 'living']
    """
    values: dict[str, None] = {}
    for pair in header.split(";"):
        key, separator, value = pair.partition("=")
        # Only spaces and tabs: strip() would also remove other characters, with which a script on
        # a neighbouring domain could set a cookie that is read as a "__Host-" cookie.
        if separator and key.strip(" \t") == name:
            value = value.strip(" \t")
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            values[value] = None
    return list(values)
