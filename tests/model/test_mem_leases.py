from tests.integration.test_store_leases import *  # noqa: F403
