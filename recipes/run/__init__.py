"""A training run: its data and machine, its processes, its Trainer, and its folder."""
