"""The exceptions of podkit.

All are :class:`PodkitError`, which is a ``RuntimeError``. Those about arguments are ``ValueError`` as well.
Decide on the class or on :attr:`PodkitError.kind`; texts are for people and may change.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AgentUnreachableError",
    "AlreadyExistsError",
    "CommandError",
    "ConflictError",
    "ContainerGoneError",
    "ImageNotFoundError",
    "InvalidInputError",
    "LimitExceededError",
    "NotFoundError",
    "PermissionDeniedError",
    "PodkitError",
    "TimedOutError",
    "UnavailableError",
    "UnsupportedError",
    "ValidationError",
]


class PodkitError(RuntimeError):
    """Something that podkit could not do."""

    #: What a program can decide on: ``not_found``, ``conflict``, ``unavailable`` and so on.
    kind: str = "unexpected"

    def __init__(
        self,
        text: str = "",
        *,
        kind: str | None = None,
        message: str | None = None,
        hint: str | None = None,
        operation: str | None = None,
        container: str | None = None,
        cleanup: Sequence[PodkitError] = (),
        retryable: bool = False,
    ) -> None:
        super().__init__(text)
        if kind is not None:
            self.kind = kind
        self.text = text
        #: The reason alone, without what was done to what.
        self.message = text if message is None else message
        #: What would help, where podkit knows.
        self.hint = hint
        #: What was being done.
        self.operation = operation
        #: The container that it was done to.
        self.container = container
        #: What failed while undoing; never the cause.
        self.cleanup = tuple(cleanup)
        #: Whether the same call may work later.
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.text}\nhint: {self.hint}" if self.hint else self.text

    def __reduce__(self) -> tuple[object, ...]:
        return (_restore, (type(self), self.text, dict(self.__dict__)))


def _restore(kind: type[PodkitError], text: str, state: dict[str, object]) -> PodkitError:
    error = kind.__new__(kind, text)
    RuntimeError.__init__(error, text)
    error.__dict__.update(state)
    return error


class NotFoundError(PodkitError):
    """The session, container, process or file does not exist."""

    kind = "not_found"


class ImageNotFoundError(NotFoundError):
    """The engine does not have the image."""

    kind = "image_not_found"


class AlreadyExistsError(PodkitError):
    """Something of this name is already there."""

    kind = "already_exists"


class InvalidInputError(PodkitError, ValueError):
    """An argument cannot be used; nothing was done."""

    kind = "invalid_input"


class ValidationError(InvalidInputError):
    """A field of a model has a value that it cannot have."""

    def __init__(self, text: str = "", *, field: str = "", **rest: object) -> None:
        super().__init__(text, **rest)  # type: ignore[arg-type]
        #: The field's name, with that of the models around it: ``volumes.0.target``.
        self.field = field


class ConflictError(PodkitError):
    """What is there stands in the way: another configuration, a port that is taken."""

    kind = "conflict"


class UnsupportedError(PodkitError):
    """This engine, or this machine, cannot do it."""

    kind = "unsupported"


class PermissionDeniedError(PodkitError):
    """The engine, the kernel or the container's user may not."""

    kind = "permission_denied"


class LimitExceededError(PodkitError):
    """A limit is reached: memory, processes, disk, sizes."""

    kind = "limit_exceeded"


class UnavailableError(PodkitError):
    """The engine cannot be reached."""

    kind = "unavailable"


class AgentUnreachableError(PodkitError):
    """The container runs, but its agent does not answer."""

    kind = "agent_unreachable"


class ContainerGoneError(PodkitError):
    """The container went away during the call."""

    kind = "container_gone"


class TimedOutError(PodkitError):
    """No answer in time. A command that runs too long is a result, not an error."""

    kind = "timed_out"


class CommandError(PodkitError):
    """A command that was to succeed did not; see :meth:`podkit.Result.check`."""

    kind = "command_failed"

    def __init__(self, text: str = "", *, result: object = None, **rest: object) -> None:
        super().__init__(text, **rest)  # type: ignore[arg-type]
        #: The command's result.
        self.result = result


_CLASSES: dict[str, type[PodkitError]] = {
    kind.kind: kind
    for kind in (
        NotFoundError,
        ImageNotFoundError,
        AlreadyExistsError,
        InvalidInputError,
        ConflictError,
        UnsupportedError,
        PermissionDeniedError,
        LimitExceededError,
        UnavailableError,
        AgentUnreachableError,
        ContainerGoneError,
        TimedOutError,
    )
}


#: What hints of the library name, and what has that name here.
_NAMES = (
    ("`--reuse`", '`on_conflict="reuse"`'),
    ("`--replace`", '`on_conflict="replace"`'),
    ("`SessionSpec::port`", "`ports`"),
    ("`--state-dir`", "`PODKIT_STATE_DIR`"),
    ("`reader`, which has no limit", "`read_stream`, which has no limit"),
    ("a `Workspace` in the session's spec", "`workspace`"),
    ("with `podkit image pull`", "by `Podkit.pull_image`"),
    ("with creation allowed", "with `create=True`"),
    ("`podkit gc --idle 10m` does", "`Podkit.gc(idle=600)` does"),
    ("isolation `caller-uid`", "isolation `caller_uid`"),
)


def _from_native(
    kind: str,
    text: str,
    message: str,
    hint: str | None,
    operation: str | None,
    container: str | None,
    cleanup: tuple[PodkitError, ...],
    retryable: bool,
) -> PodkitError:
    if hint is not None:
        for theirs, ours in _NAMES:
            hint = hint.replace(theirs, ours)
    return _CLASSES.get(kind, PodkitError)(
        text,
        kind=kind,
        message=message,
        hint=hint,
        operation=operation,
        container=container,
        cleanup=cleanup,
        retryable=retryable,
    )
