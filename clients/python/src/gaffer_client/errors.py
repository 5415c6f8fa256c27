"""What can go wrong, as exceptions that carry the daemon's stable code and its hint."""

from __future__ import annotations

from typing import Any, Dict, List, Optional


class GafferError(Exception):
    """Everything that this package raises."""


class Unreachable(GafferError):
    """No daemon answers there."""

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(f"no daemon answers at {endpoint}: {why}")
        self.endpoint = endpoint


class ProtocolError(GafferError):
    """The answer is not what the contract says, or it broke off."""


class ApiError(GafferError):
    """The daemon refused.

    `code` is stable (docs/errors.md lists all), `hint` says what to do, `details` are the places in a file.
    """

    def __init__(self, status: int, error: Dict[str, Any]) -> None:
        self.status = status
        self.code: str = error.get("code", "")
        self.message: str = error.get("message", f"HTTP status {status}")
        self.hint: Optional[str] = error.get("hint")
        self.details: List[Dict[str, Any]] = error.get("details", [])
        self.request: Optional[str] = error.get("request")
        super().__init__(self.message if not self.hint else f"{self.message} ({self.hint})")


class UsageError(ApiError):
    """The request or the file is wrong: 400, 405, 413, 422."""


class NotFound(ApiError):
    """No such job, run, webhook or route: 404."""


class Conflict(ApiError):
    """The present forbids it: 409, 412."""


class NotAllowed(ApiError):
    """A credential is missing or not enough: 401, 403."""


class Failed(ApiError):
    """Anything else: busy, ending, timed out, a full disk."""


def of_status(status: int, error: Dict[str, Any]) -> ApiError:
    """The exception for a status, as the command line chooses its exit codes."""
    if status in (400, 405, 413, 422):
        return UsageError(status, error)
    if status == 404:
        return NotFound(status, error)
    if status in (409, 412):
        return Conflict(status, error)
    if status in (401, 403):
        return NotAllowed(status, error)
    return Failed(status, error)
