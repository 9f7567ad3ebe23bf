"""The playground at `/`: ask a model, look at its answer, rate or correct it. It uses nothing but the public API."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from .core.auth import SCOPE_PERMISSIONS
from .core.models import Scope


@require_safe
@never_cache
@ensure_csrf_cookie
def playground(request: HttpRequest) -> HttpResponse:
    """The page; its script reads `GET /api/models` and draws the form of the chosen classifier.

    Visitors without a staff session get a sign-in link instead where anonymous use is off, and staff without a role
    are told that they need one.
    """
    user = request.user
    is_staff = user.is_active and user.is_staff
    may_ask = user.has_perm(SCOPE_PERMISSIONS[Scope.PREDICT]) if is_staff else settings.KALIMTAK_ANONYMOUS
    context = {"is_staff": is_staff, "may_ask": may_ask}
    return render(request, "playground/page.html", context)
