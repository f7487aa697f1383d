"""The privacy report: what a run or a ledger promises, signed, and everything a reader needs to check it."""
