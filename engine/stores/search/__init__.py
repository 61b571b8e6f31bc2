"""What Elasticsearch holds: the index of the users, the data stream of the logs, and the client."""
