"""What follows from several days: history, changes, reconciliation, usage, audit, costs."""
