"""The evaluation of users: read candidates, evaluate them in batches, enrol, and recheck users who changed."""
