"""The errors that end a run. Each message is a sentence that says what was wrong, where, and what to do.

Failures of a single image do not belong here: they are data (see `cloud.classification`). `exit_status` is that of the
command line: 1 failed, 2 usage or configuration.
"""

from pipelines.plain_text import visible


class PipelineError(Exception):
    """A run cannot continue. The message is one sentence for the operator and holds no secret.

    It may quote text from outside, so control characters and line breaks are escaped.
    """

    exit_status = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))


class ConfigurationError(PipelineError):
    """Settings, credentials, arguments or an input file are wrong; a retry does not help."""

    exit_status = 2


class AccessDeniedError(ConfigurationError):
    """The API refuses the credentials or the project: no request can succeed."""


class ListUnreadableError(PipelineError):
    """A list of the API cannot be read completely; other requests may succeed."""


class ListDeniedError(ListUnreadableError, AccessDeniedError):
    """The API denies a list to these credentials; other requests may succeed."""


class ListMissingError(ListUnreadableError):
    """The API does not have such a list; other requests may succeed."""


class AccountSuspendedError(PipelineError):
    """The cloud account is suspended, in arrears or not authorised: no request can succeed."""


class EndpointUnreachableError(PipelineError):
    """An endpoint or a database cannot be reached; a later try may succeed."""


class PartitionBusyError(PipelineError):
    """Another run holds this partition."""


class TooManyFailuresError(PipelineError):
    """More ids failed than `MAX_FAILED_RATIO` allows, so nothing was published."""


class ValidationError(PipelineError):
    """A table breaks its contract, so nothing was published."""


class StorageError(PipelineError):
    """The lake cannot be written or read: no permission, no space, or a damaged file."""


class StorageUnreachableError(StorageError):
    """The object store cannot be reached, or is overloaded; a later try may succeed."""
