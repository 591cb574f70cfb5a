"""`kl reproduce`: the experiments of the papers, each in one command, held against the published numbers."""
