"""One class per kind of failure. A message says what is wrong, with the values, then what to do about it."""


class PipelineError(Exception):
    """Base of every error this project raises on purpose; the command line prints it without a traceback."""


class SpecError(PipelineError, ValueError):
    """A spec, flag or config value that cannot be used."""


class UnknownNameError(SpecError):
    """A backbone, head, rule, method or preset that is not registered."""


class ListError(PipelineError, ValueError):
    """A video list with problems; the message lists all of them."""


class DecodeError(PipelineError):
    """A video that cannot be turned into frames."""


class WeightsError(PipelineError):
    """Network weights that are missing, damaged or do not fit the network."""


class FeatureError(PipelineError, ValueError):
    """Features that must not be stored: NaN, Inf, a float16 overflow or a wrong shape."""


class StoreError(PipelineError):
    """A feature store that cannot be used as asked."""


class SpecMismatchError(StoreError):
    """A store or run that was made from another spec."""


class OtherLevelsError(SpecMismatchError):
    """A good shard whose levels are not those of the store's first one."""


class MissingFeaturesError(StoreError, KeyError):
    """Videos that have no features in the store."""

    __str__ = Exception.__str__  # KeyError would print the repr


class DamagedShardError(StoreError):
    """A shard whose bytes are not what its writer wrote."""


class TrainingError(PipelineError, ValueError):
    """Training data or settings from which nothing sensible can be learned."""


class ScoreError(PipelineError, ValueError):
    """A score table that contradicts itself or cannot be read."""


class AlignmentError(ScoreError):
    """Score tables that do not speak of the same videos, classes, labels or kind."""


class Interrupted(PipelineError):
    """The work was stopped by a signal; what is complete has been published and the same command resumes it."""
