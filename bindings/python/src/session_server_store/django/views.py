"""The page "your devices". Its template is session_server_store/devices.html."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.generic import TemplateView

from .devices import devices, end_device, revoke


class DevicesView(LoginRequiredMixin, TemplateView):
    template_name = "session_server_store/devices.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(devices=devices(self.request.user, self.request), **kwargs)

    def post(self, request: HttpRequest) -> HttpResponse:
        """``ref`` ends one device, and without it all others end."""
        if "ref" in request.POST:
            end_device(request.user, request.POST["ref"])
        else:
            revoke(request.user, except_request=request)
        return HttpResponseRedirect(request.path)
