"""`kl bench distributed`."""
