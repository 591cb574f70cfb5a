"""Features that are learnt before the kernel sees them: the average gradient outer product and its metric."""
