"""What a new ``policy.toml`` starts from, where its owner says nothing."""

MIN_PEOPLE = 20  # fewer people than this: no training
