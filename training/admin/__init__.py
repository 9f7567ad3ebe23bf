"""Admin pages of data sets, training items and their review, snapshots and runs."""

from training.admin import datasets, items, runs, snapshots  # noqa: F401  (register their pages)
