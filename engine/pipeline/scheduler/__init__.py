"""The clock: starts what is due, plans runs, dispatches slices, frees expired leases, and completes runs."""
