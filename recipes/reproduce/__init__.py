"""`kl reproduce`: the experiments of the papers, each in one command, compared with the published numbers."""
