"""A Django project with login and a page of devices, on session_server_store.

    pip install './bindings/python[django]'
    python3 examples/django/manage.py demo      # creates users, then serves http://127.0.0.1:8000

project/settings.py has what the store needs: four settings. SESSION_STORE names another store.
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    execute_from_command_line(sys.argv)
