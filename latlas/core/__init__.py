"""The vocabulary every other layer speaks: spaces, batches, models, distributions, errors."""
