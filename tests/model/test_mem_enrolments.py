from tests.integration.test_store_enrolments import *  # noqa: F403
