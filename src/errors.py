"""What a person did wrong, told in one line: what was given, what is allowed, what to do."""


class UserError(ValueError):
    """Stops the program with exit code 1 and its message as the only output."""


class ConfigError(UserError):
    """A configuration key or value that cannot be used."""


class DataError(UserError):
    """An image, mask or folder that cannot be used; the message names the file."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not fit; the message names file and keys."""


class WriteError(UserError):
    """A run's folder that cannot be written to; the message names it."""


class NonFiniteLossError(UserError):
    """The training loss was not a finite number; the weights are those from before that step."""


class OutOfMemoryError(UserError):
    """A training step did not fit into memory; the message names a batch that does."""


class WorkerError(UserError):
    """A process that makes batches died."""


class RankError(UserError):
    """Another process of those that train together ended."""
