"""The WSGI entry point that `Procfile` gives to gunicorn."""

import gc
import os

gc.disable()  # until everything is imported: see kalimtak/apps.py

from django.core.wsgi import get_wsgi_application  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kalimtak.settings")
application = get_wsgi_application()
gc.enable()  # where this is imported later than the apps, as by `runserver`
