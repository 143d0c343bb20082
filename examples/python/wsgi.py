"""login_app.py for WSGI servers, with any number of processes:

    SESSION_STORE=lmdb:/tmp/sessions gunicorn --chdir examples/python --preload -w 4 wsgi:application

The store is opened here, once, before the server forks: `lmdb:` is made for that, `memory:` says that it is not.
"""

import os

from login_app import STORE_VARIABLE, LoginApp

from session_server_store import Store

application = LoginApp(Store(os.environ[STORE_VARIABLE]))
