"""Adapters to MongoDB, Redis and Elasticsearch: named queries, each with its index."""
