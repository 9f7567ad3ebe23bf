import gc

from django.apps import AppConfig


class KalimtakConfig(AppConfig):
    """The roof: its commands and checks are found because it is an app; it owns no tables."""

    name = "kalimtak"
    label = "roof"
    verbose_name = "Kalimtak"

    def ready(self) -> None:
        from kalimtak import checks  # noqa: F401  (registers the system checks)

        # Imports make many objects and no garbage; looking for some again and again took a sixth of the start.
        gc.freeze()
        gc.enable()
