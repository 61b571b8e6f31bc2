"""The campaign file: its model, its checks and its compiled form."""
