"""Products with the kernel matrix: in blocks, kept, as a triangle, of low rank, and differentiable."""
