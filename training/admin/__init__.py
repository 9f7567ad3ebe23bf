"""Admin pages of data sets, training items and their review, blocked words, snapshots and runs."""

from training.admin import datasets, items, runs, shares, snapshots, words  # noqa: F401  (register their pages)
