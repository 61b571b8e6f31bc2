"""The local services (MongoDB, Redis, Elasticsearch) of one folder: found, started, watched and recorded."""
