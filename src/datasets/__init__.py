"""The data sets: reading, checking, augmenting."""
