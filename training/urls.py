"""Addresses of the training app's endpoints; a trailing slash makes no difference."""

from kalimtak.core.api import api_path
from training import views

urlpatterns = [
    api_path("api/feedback", views.FeedbackView.as_view(), name="feedback"),
    api_path("api/admin/load-dataset", views.LoadDatasetView.as_view(), name="load_dataset"),
    api_path("api/admin/curate-training-data", views.CurateView.as_view(), name="curate"),
    api_path("api/admin/retrain", views.RetrainView.as_view(), name="retrain"),
    api_path("api/admin/jobs/<uuid:job_id>", views.JobView.as_view(), name="job"),
    api_path("api/admin/jobs/<uuid:job_id>/cancel", views.JobCancelView.as_view(), name="job_cancel"),
]
