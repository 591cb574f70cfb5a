"""What every LightningModule of kl shares: evaluation, checkpoints, state; and the ReLU network to compare with."""
