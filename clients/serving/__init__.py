"""What a merchant's shop asks of the ranker, beside its people's histories."""
