"""The command line `kl`: one file per command."""
