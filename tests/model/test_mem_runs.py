from tests.integration.test_store_runs import *  # noqa: F403
