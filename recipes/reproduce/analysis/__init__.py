"""What several experiments conclude from their points."""
