"""What may be said of a sweep: rows, differences with intervals, effects of keys, and the sentences for them."""
