from tests.integration.test_store_slices import *  # noqa: F403
