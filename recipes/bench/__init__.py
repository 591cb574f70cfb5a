"""`kl bench`: how fast this machine trains, solves and grows, beside the limit and beside other libraries."""
