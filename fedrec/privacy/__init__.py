"""Everything the guarantee rests on: one ingredient a file, joined by ``PrivacyPlan``."""
