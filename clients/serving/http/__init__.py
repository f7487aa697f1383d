"""The ranker over HTTP, for one shop."""
