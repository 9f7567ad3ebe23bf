#!/usr/bin/env python
"""Kalimtak's command line: `python manage.py help` lists every command."""

import gc
import os
import sys


def main() -> None:
    gc.disable()  # until everything is imported: see kalimtak/apps.py
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kalimtak.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
