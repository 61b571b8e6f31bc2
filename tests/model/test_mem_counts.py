from tests.integration.test_store_counts import *  # noqa: F403
