"""The feed: follows the users' changes and updates the user cache, the search index and what is to be rechecked."""
