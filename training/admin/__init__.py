"""Admin pages of data sets, training items and their review, snapshots and runs."""

from training.admin import datasets, items, runs  # noqa: F401  (register their pages)
