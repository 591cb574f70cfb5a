"""What experiments need beside their own files: figures, claims, fits to their numbers."""
