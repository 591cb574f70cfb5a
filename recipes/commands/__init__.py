"""The commands of `kl`, one file each."""
