"""Errors that people meet. Each message says what was expected, what came, and what to do."""


class CCANError(Exception):
    """Base of every error that this package raises on purpose."""


class ShapeError(CCANError, ValueError):
    """A tensor or an array does not have the shape that the operation is defined for."""


class ConfigError(CCANError, ValueError):
    """A setting, or a combination of settings, has no meaning."""


class DatasetError(CCANError):
    """A folder on disk is not the dataset it was said to be, or an image cannot be read."""


class ProtocolError(CCANError, ValueError):
    """The evaluation protocol cannot be applied to these features or lists."""


class CheckpointError(CCANError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingError(CCANError):
    """Training cannot go on; the last checkpoint on disk is intact."""


class SearchError(CCANError):
    """An index that is searched, or the engine behind it, is damaged, foreign or out of reach."""


class NotebookError(CCANError):
    """A cell of a notebook failed; the executed notebook holds everything up to there."""
