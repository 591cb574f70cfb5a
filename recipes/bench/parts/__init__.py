"""The parts of `kl bench`."""
