"""Policies: lanes, fleets and profiles, read strictly from YAML."""
