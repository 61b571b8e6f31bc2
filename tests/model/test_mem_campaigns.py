from tests.integration.test_store_campaigns import *  # noqa: F403
