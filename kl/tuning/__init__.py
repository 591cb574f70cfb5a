"""Choice of kernel, bandwidth and ridge without a validation set: exact leave-one-out and K-fold scores."""
