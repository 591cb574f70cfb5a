"""The computations that experiments are made of, one file per kind."""
