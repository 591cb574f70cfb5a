"""`kl plan`: what a training run would take, each solver's in a file of its own."""
