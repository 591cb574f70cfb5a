"""`kl bench tables`: errors on tables, beside other libraries with the same budget."""
