"""The pages: home, login, logout, devices, admin."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth import views
from django.contrib.auth.admin import UserAdmin
from django.urls import include, path
from django.views.generic import TemplateView

from session_server_store.django.admin import log_out_everywhere

UserAdmin.actions = [*UserAdmin.actions, log_out_everywhere]

urlpatterns = [
    path("", TemplateView.as_view(template_name="home.html"), name="home"),
    path("login/", views.LoginView.as_view(), name="login"),
    path("logout/", views.LogoutView.as_view(), name="logout"),
    path("devices/", include("session_server_store.django.urls")),
    path("admin/", admin.site.urls),
]
