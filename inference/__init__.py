"""Answering: routing, the engine that holds loaded versions, and the API around them.

May import `interactions`, `registry` and `kalimtak.core`, never `training`. Front door:
`inference.services.text_classify`, and `create_classifier` for Python programs without a server.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.classifier import LocalClassifier


def create_classifier(slug: str = "", *, enable_backup: bool = False) -> "LocalClassifier":
    """The live version of classifier `slug` (default: the default one) as an object with `.classify(text)`.

    Needs `django.setup()`, no server. Raises `NotFound` for an unknown slug, `Unavailable` where nothing is live.
    """
    from inference.classifier import LocalClassifier  # models need the app registry

    return LocalClassifier(slug, enable_backup=enable_backup)
