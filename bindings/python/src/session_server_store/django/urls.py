"""``path("devices/", include("session_server_store.django.urls"))``."""

from __future__ import annotations

from django.urls import path

from .views import DevicesView

app_name = "session_server_store"
urlpatterns = [path("", DevicesView.as_view(), name="devices")]
