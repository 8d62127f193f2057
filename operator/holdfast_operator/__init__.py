"""The operator: one idempotent reconcile that turns a Tenant into running storage pods."""
