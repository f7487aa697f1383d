"""Everything that can go wrong on purpose.

    FedrecError                 base of all; the CLI prints one line and exits with ``exit_code``
    ├── ConfigError       (2)   a flag or a configuration value
    ├── DataError         (2)   an input file: names the file and, where known, the row and field
    ├── RunError          (2)   a run folder, a checkpoint or an engine
    ├── WireError         (2)   a message that does not match the agreed schema
    └── PrivacyError      (3)   a refusal: going on would break or overspend the guarantee
        └── BudgetSpentError    too few clients have budget left to go on

Anything else that escapes is a bug and keeps its traceback.
"""


class FedrecError(Exception):
    """A problem the person at the keyboard can mend; its text is one line that says how."""

    exit_code = 2


class ConfigError(FedrecError):
    """A flag or configuration value is missing, malformed or out of range."""


class DataError(FedrecError):
    """An input file cannot be used as it is."""


class RunError(FedrecError):
    """A run folder, checkpoint or engine is not in a usable state."""


class WireError(FedrecError):
    """A message breaks the schema both sides agreed on."""


class PrivacyError(FedrecError):
    """Going on would break, overspend or misstate the privacy guarantee, so we stop."""

    exit_code = 3


class BudgetSpentError(PrivacyError):
    """So many clients have spent their budget that no further round can count; what was reached is published."""
