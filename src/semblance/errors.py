"""The one tree of errors.

SemblanceError
  ConfigError         an option is unknown, of the wrong type, or contradicts another    exit 2
    MissingExtra      an optional dependency is not installed                            exit 2
  InputError          images, labels or a table cannot be used                           exit 3
    CollectionError   a folder on disk is not the collection it should be                exit 3
      ModelMismatch   a part belongs to another model                                    exit 3
  TrainingCollapsed   the embedding lost its spread while training                       exit 4
"""

from __future__ import annotations

__all__ = [
    "CollectionError",
    "ConfigError",
    "InputError",
    "MissingExtra",
    "ModelMismatch",
    "SemblanceError",
    "TrainingCollapsed",
]


class SemblanceError(Exception):
    """Base of every error that Semblance raises on purpose.

    `message` says what went wrong and where, `hint` what to do next. The command line prints both on
    one line and exits with `exit_code`; with `--json` it prints `kind`, `message` and `hint`.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """The name of the class, as `--json` reports it."""
        return type(self).__name__


class ConfigError(SemblanceError):
    """An option is unknown, has the wrong type or contradicts another."""

    exit_code = 2


class MissingExtra(ConfigError):
    """An optional dependency is needed and not installed.

    >>> MissingExtra("onnx", "export to ONNX").hint
    'pip install "semblance[onnx]"'
    """

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs the extra "{extra}"', f'pip install "semblance[{extra}]"')


class InputError(SemblanceError):
    """Images, labels or a table cannot be used as they are."""

    exit_code = 3


class CollectionError(InputError):
    """A folder is not the collection it should be, or would be overwritten."""


class ModelMismatch(CollectionError):
    """Parts of two different models met."""


class TrainingCollapsed(SemblanceError):
    """The embedding lost its spread while training; the message names the knob to turn."""

    exit_code = 4
