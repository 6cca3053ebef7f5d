"""What can go wrong while a bundle is made or read. Every text says what was wrong, where, and what to do.

EngineBuildError
├── SpecError          an option is out of range
├── GgufError          the weights file can't be read or isn't of a supported kind
├── TokenizerError     the vocabulary can't be turned into a tokenizer.json
├── ChatTemplateError  the prompt format can't be told from the model's chat template
├── DownloadError      the default model can't be fetched
└── BundleError        a bundle is missing, damaged, or in the way
"""

from __future__ import annotations


class EngineBuildError(Exception):
    """Base of all errors that are shown to the user as one message, without a stack trace."""


class SpecError(EngineBuildError):
    """An option is out of range; the text names it."""


class GgufError(EngineBuildError):
    """A weights file can't be read, or is not of a supported kind."""


class TokenizerError(EngineBuildError):
    """A vocabulary can't be turned into a tokenizer.json."""


class ChatTemplateError(EngineBuildError):
    """A chat template is of no known prompt format."""


class DownloadError(EngineBuildError):
    """The default model can't be fetched."""


class BundleError(EngineBuildError):
    """A bundle is missing, damaged, or in the way of a new one."""
