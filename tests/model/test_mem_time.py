from tests.integration.test_store_time import *  # noqa: F403
