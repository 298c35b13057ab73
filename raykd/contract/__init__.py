"""The contract: the promises that every method keeps, one's own too; run by the tests and `methods check`."""
