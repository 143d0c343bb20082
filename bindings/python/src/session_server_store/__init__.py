"""Server-side sessions: the client holds a random id, the session stays on the server.

>>> with Store("memory:?idle_timeout=10m") as store:
...     sid = store.create({"user": "alice"})
...     store.get(sid).payload
{'user': 'alice'}
"""

from ._arguments import INHERIT as INHERIT
from ._arguments import Timeout as Timeout
from ._global import advance_clock as advance_clock
from ._global import create as create
from ._global import delete as delete
from ._global import delete_ref as delete_ref
from ._global import get as get
from ._global import list as list
from ._global import may_block as may_block
from ._global import open_global as open_global
from ._global import put as put
from ._global import put_if as put_if
from ._global import ref as ref
from ._global import renew as renew
from ._global import revoke as revoke
from ._global import revoke_all as revoke_all
from ._global import stats as stats
from ._global import sweep as sweep
from ._global import touch as touch
from ._global import touch_ref as touch_ref
from ._version import __version__ as __version__
from .cookies import cookie_values
from .errors import (
    ClosedError,
    ConflictError,
    CorruptError,
    ForkedError,
    FullError,
    InvalidError,
    SessionStoreError,
    Status,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
    UrlError,
)
from .labels import device_label
from .records import Blocking, Session, SessionInfo, Stats
from .serializers import JSON, RAW, Serializer
from .store import Store

# Without the functions of the global store: a star import must not replace the builtin ``list``.
__all__ = [
    "INHERIT",
    "JSON",
    "RAW",
    "Blocking",
    "ClosedError",
    "ConflictError",
    "CorruptError",
    "ForkedError",
    "FullError",
    "InvalidError",
    "Serializer",
    "Session",
    "SessionInfo",
    "SessionStoreError",
    "Stats",
    "Status",
    "Store",
    "Timeout",
    "TooLargeError",
    "UnavailableError",
    "UnsupportedError",
    "UrlError",
    "cookie_values",
    "device_label",
]
