"""Several processes that share the centres: who owns which rows, and the Lightning strategy."""
