"""LightningModules: what every kernel machine shares, its data, its checkpoints, and ReLU networks for comparison."""
