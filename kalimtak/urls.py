"""Every address of the installation: playground, admin, API, schema, health.

Paths under `/api/` answer with and without a trailing slash: `ApiMiddleware` removes it before they are resolved.
"""

import sys

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views import defaults
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from kalimtak.core import api
from kalimtak.core.middleware import is_api
from kalimtak.core.outages import outage_of, unavailable
from kalimtak.views import playground

urlpatterns = [
    path("", playground, name="playground"),
    path("admin/", admin.site.urls),
    path("", include("inference.urls")),
    path("", include("training.urls")),
    path("", include("registry.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
]


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return api.bad_request(request, exception) if is_api(request) else defaults.bad_request(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if is_api(request):
        return api.not_found(request, exception)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    error = sys.exc_info()[1]  # of a middleware, such as a session that cannot be stored
    if error is not None and (outage := outage_of(error)):
        return unavailable(request, error, outage, as_json=is_api(request))
    return api.server_error(request) if is_api(request) else defaults.server_error(request)


handler400 = bad_request
handler404 = not_found
handler500 = server_error
