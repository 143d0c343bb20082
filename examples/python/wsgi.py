"""login_app.py for WSGI servers with any number of processes:

    SESSION_STORE=lmdb:/tmp/sessions \\
        gunicorn --chdir examples/python --preload -w 4 wsgi:application

The store is opened once, before the server forks. The workers can use an ``lmdb:`` or ``redis:``
store; with ``memory:`` every request fails.
"""

import os

from login_app import STORE_VARIABLE, LoginApp

from session_server_store import Store

application = LoginApp(Store(os.environ[STORE_VARIABLE]))
