"""fedrec beside what people would use instead, on the same work: ``make bench``."""
