"""An action for the admin pages of users.

from django.contrib.auth.admin import UserAdmin
from session_server_store.django.admin import log_out_everywhere
UserAdmin.actions = [*UserAdmin.actions, log_out_everywhere]
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.translation import ngettext

from .devices import revoke


@admin.action(description="Log out everywhere", permissions=["change"])
def log_out_everywhere(modeladmin: Any, request: HttpRequest, queryset: Any) -> None:
    """Ends all sessions of the selected users, but not the one that asks for it."""
    count = sum(revoke(user, except_request=request) for user in queryset)
    text = ngettext("%d session was ended.", "%d sessions were ended.", count) % count
    modeladmin.message_user(request, text, messages.SUCCESS)
