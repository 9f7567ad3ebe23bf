"""What can answer, and who answers now: classifiers, versions, artefacts, model families, deployments.

May import `kalimtak.core` only. Front door: `registry.services` (`version_register`, `version_deploy`,
`version_rollback`, `evaluation_record`), `registry.config.models_sync` and `registry.families.load`.
"""
