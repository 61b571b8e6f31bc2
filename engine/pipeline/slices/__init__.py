"""The work on one slice under a lease, whatever it does: claim, batches with checkpoints, close."""
