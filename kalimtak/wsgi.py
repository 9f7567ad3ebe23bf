"""The WSGI entry point that `Procfile` gives to gunicorn."""

import gc
import os

gc.disable()  # until everything is imported: see kalimtak/apps.py

from django.core.wsgi import get_wsgi_application  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kalimtak.settings")
application = get_wsgi_application()
# Nearly all that a request makes goes with it. By default, of 700 new objects, Python looks for cycles among those that
# other requests still hold at least once per request: 3 % of the processor time of an answer.
gc.set_threshold(10_000)
gc.enable()  # where this is imported later than the apps, as by `runserver`
