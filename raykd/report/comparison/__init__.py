"""Several runs on one page: the papers' table of each pair."""
