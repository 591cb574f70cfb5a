"""What the operating system gives: memory, files, signals, and a user's modules."""
