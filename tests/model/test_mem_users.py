from tests.integration.test_store_users import *  # noqa: F403
