"""`python -m raykd`: the verbs."""

from raykd.cli import main

main()
