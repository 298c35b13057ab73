"""A run's files as plain, checked rows."""
