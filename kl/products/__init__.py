"""Products with the kernel matrix: in blocks, with kept rows, as a triangle, of low rank, and differentiable."""
