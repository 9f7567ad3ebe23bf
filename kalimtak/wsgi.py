"""The WSGI entry point that `Procfile` gives to gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kalimtak.settings")
application = get_wsgi_application()
