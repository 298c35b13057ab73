"""Rows -> statistics -> figures, tables -> one HTML page that opens from disk. Needs no Ray, torch or GPU.

Why it has code of its own: loss terms, raw accuracies, retrainings and analyses are in no Optuna study.
Optuna's figures state no n, no interval and no difference by seed, and its importances judge by the trials
that they were fitted to; its dashboard is a server, not a page to send. The rest is matplotlib and Jinja2.
"""
