"""A study on Ray: Tune, Train and Optuna."""
