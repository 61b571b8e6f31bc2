from tests.integration.test_store_deliveries import *  # noqa: F403
