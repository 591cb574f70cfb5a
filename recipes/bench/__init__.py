"""`kl bench`: the speed of training and solving here, compared with plain matrix products and other libraries."""
