"""`python -m recipes` is the command `kl`."""

from recipes.cli import main

main()
