"""``manage.py demo``: creates the tables and the users, then serves."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

USERS = {"alice": "wonderland", "bob": "yellow-submarine"}


class Command(BaseCommand):
    help = "Creates the tables and the users alice and bob, then serves."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        users = get_user_model()
        for name, password in USERS.items():
            if not users.objects.filter(username=name).exists():
                users.objects.create_superuser(name, password=password)
        self.stdout.write("Log in as " + " or ".join(f"{name} / {password}" for name, password in USERS.items()))
        call_command("runserver", options["address"], use_reloader=False)
