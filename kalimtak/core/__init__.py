"""The floor every app stands on: job ledger, API keys, audit trail, errors, environment, admin bases.

Imports no other app. Front doors: `jobs` (enqueue, claim, run, reap), `auth` (keys and scopes), `audit.record`,
`errors` (one exception family, one JSON shape) and `admin` (base classes over django-unfold).
"""
