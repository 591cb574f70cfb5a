"""The solvers behind `kl.interpolate`: a factorisation, and preconditioned conjugate gradients."""
