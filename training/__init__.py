"""How judgement becomes a version: data sets, curation, review, snapshots, runs.

May import `interactions`, `registry` and `kalimtak.core`, never `inference`. Front door: `training.services`
(`dataset_import`, `examples_curate`, `item_review`, `snapshot_freeze`, `run_start`, `run_execute`).
"""
