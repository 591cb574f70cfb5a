"""Features before the kernel: the metric of average gradient outer products, and responses to patches of images."""
