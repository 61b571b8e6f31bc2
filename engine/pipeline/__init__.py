"""Use cases: each a column of named steps over the ports in `ports`."""
