from kalimtak.core.api import api_path

from .views import DeployView, RollbackView

urlpatterns = [
    api_path("api/admin/deploy", DeployView.as_view(), name="deploy"),
    api_path("api/admin/rollback", RollbackView.as_view(), name="rollback"),
]
