"""`kl plan`: the forecast of a training run, with one file for each solver."""
