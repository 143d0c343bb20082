"""The Django site of sites.py: its URLs and views, and the admin pages."""

from __future__ import annotations

from typing import Any

import hold
from django.contrib import admin
from django.contrib.auth import login, logout
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from session_server_store.django import devices, end_device, revoke
from session_server_store.django.admin import log_out_everywhere

HIDDEN = ("_auth_user_backend", "_auth_user_hash", "_session_expiry")

UserAdmin.actions = [*UserAdmin.actions, log_out_everywhere]


def read(request: HttpRequest) -> tuple[dict[str, Any], dict[str, str]]:
    query = request.GET.dict()
    data = dict(request.session.items())
    if "hold" in query:
        hold.wait(query.pop("hold"))
    return data, query


def get(request: HttpRequest) -> JsonResponse:
    data, _ = read(request)
    return JsonResponse({key: value for key, value in data.items() if key not in HIDDEN})


def plain(request: HttpRequest) -> JsonResponse:
    return JsonResponse({})


def crash(request: HttpRequest) -> JsonResponse:
    request.session["crashed"] = "yes"
    raise RuntimeError("on purpose")


def set_keys(request: HttpRequest) -> JsonResponse:
    request.session.update(read(request)[1])
    return JsonResponse({})


def remove(request: HttpRequest) -> JsonResponse:
    for key in read(request)[1]:
        request.session.pop(key, None)
    return JsonResponse({})


def nested(request: HttpRequest) -> JsonResponse:
    request.session["cart"].append(read(request)[1]["item"])
    request.session.modified = True
    return JsonResponse({})


def cart(request: HttpRequest) -> JsonResponse:
    request.session["cart"] = []
    return JsonResponse({})


def log_in(request: HttpRequest) -> JsonResponse:
    query = read(request)[1]
    login(request, User.objects.get(username=query["user"]))
    return JsonResponse({})


def log_out(request: HttpRequest) -> JsonResponse:
    read(request)
    logout(request)
    return JsonResponse({})


def renew(request: HttpRequest) -> JsonResponse:
    if "again" in read(request)[1]:
        request.session.renew(reauthenticated=True)
    else:
        request.session.cycle_key()
    return JsonResponse({})


def list_devices(request: HttpRequest) -> JsonResponse:
    found = [
        {"ref": device.ref, "current": device.current, "label": device.label}
        for device in devices(request.user, request)
    ]
    return JsonResponse(found, safe=False)


def end_one(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"ended": end_device(request.user, request.GET["ref"])})


def end_others(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"ended": revoke(request.user, except_request=request)})


urlpatterns = [
    path("get", get),
    path("plain", plain),
    path("crash", crash),
    path("set", set_keys),
    path("remove", remove),
    path("nested", nested),
    path("cart", cart),
    path("login", log_in),
    path("logout", log_out),
    path("renew", renew),
    path("devices", list_devices),
    path("end-device", end_one),
    path("end-others", end_others),
    path("my-devices/", include("session_server_store.django.urls")),
    path("admin/", admin.site.urls),
]
