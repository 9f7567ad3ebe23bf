"""Addresses of the prediction API and of the health checks."""

from django.urls import path

from inference import exposition, health, views
from kalimtak.core.api import api_path

urlpatterns = [
    api_path("api/predict", views.PredictView.as_view(), name="predict"),
    api_path("api/classify/<slug:route>", views.ClassifyView.as_view(), name="classify"),
    api_path("api/models", views.ModelsView.as_view(), name="models"),
    path("livez", health.livez, name="livez"),
    path("readyz", health.readyz, name="readyz"),
    path("healthz", health.HealthView.as_view(), name="healthz"),
    path("metrics", exposition.metrics, name="metrics"),
]
