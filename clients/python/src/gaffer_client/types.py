"""What the daemon answers, as dataclasses.

Fields only get added: what this version does not know is in `raw`. Times are RFC 3339 texts in UTC (`*_at`), durations
milliseconds (`*_ms`), sizes bytes (`*_bytes`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Type, TypeVar

T = TypeVar("T", bound="Answer")


@dataclass
class Answer:
    """Something that was answered; `raw` is all of it."""

    raw: Dict[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def of(cls: Type[T], value: Dict[str, Any]) -> T:
        """From JSON. What is missing has its default."""
        known = {one.name for one in dataclasses.fields(cls)} - {"raw"}
        made = cls(**{key: item for key, item in value.items() if key in known})
        made.raw = value
        made._nested()
        return made

    def _nested(self) -> None:
        """Gives nested objects their types."""


@dataclass
class Reason(Answer):
    """Why: a stable code and a sentence."""

    code: str = ""
    text: str = ""


@dataclass
class Stats(Answer):
    """One sample of a run; from `Client.stats` with its place."""

    at: str = ""
    cpu_percent: Optional[float] = None
    cpu_ms: int = 0
    memory_bytes: int = 0
    processes: int = 0
    threads: int = 0
    run: Optional[str] = None
    session: Optional[str] = None
    job: Optional[str] = None
    instance: Optional[int] = None


@dataclass
class Instance(Answer):
    """An instance of a job, or a one-off."""

    instance: int = 0
    run: Optional[str] = None
    pid: Optional[int] = None
    state: str = ""
    wish: str = ""
    reason: str = ""
    reason_code: str = ""
    started_at: Optional[str] = None
    ready_at: Optional[str] = None
    up_ms: Optional[int] = None
    next_try_at: Optional[str] = None
    restarts: int = 0
    attempt: int = 0


@dataclass
class Job(Answer):
    """A job and its instances."""

    session: str = ""
    job: str = ""
    wish: str = ""
    state: str = ""
    summary: str = ""
    reason: str = ""
    reason_code: str = ""
    target: int = 0
    priority: int = 0
    revision: int = 0
    file: Optional[str] = None
    line: Optional[int] = None
    description: str = ""
    meta: Dict[str, str] = field(default_factory=dict)
    instances: List[Instance] = field(default_factory=list)
    one_offs: List[Instance] = field(default_factory=list)
    spec: Optional[Dict[str, Any]] = None

    def _nested(self) -> None:
        self.instances = [Instance.of(one) for one in self.raw.get("instances", [])]
        self.one_offs = [Instance.of(one) for one in self.raw.get("one_offs", [])]


@dataclass
class Session(Answer):
    """A session with counts."""

    session: str = ""
    jobs: int = 0
    instances: int = 0
    running: int = 0
    summary: str = ""


@dataclass
class Run(Answer):
    """One run of a program, living or over."""

    run: str = ""
    session: str = ""
    job: str = ""
    instance: Optional[int] = None
    attempt: int = 0
    pid: Optional[int] = None
    state: str = ""
    started_at: Optional[str] = None
    ended_at: Optional[str] = None
    lived_ms: Optional[int] = None
    exit_code: Optional[int] = None
    signal: Optional[str] = None
    cause: Optional[str] = None
    reason: str = ""
    reason_code: str = ""
    last_lines: List[str] = field(default_factory=list)


@dataclass
class LogLine(Answer):
    """A line of output."""

    subject: str = ""
    stream: str = ""
    time: str = ""
    offset: int = 0
    text: str = ""
    run: Optional[str] = None
    complete: bool = True


@dataclass
class Event(Answer):
    """Something that happened. `cursor` is where to go on behind it; a `gap` says that some were missed."""

    cursor: str = ""
    epoch: int = 0
    seq: int = 0
    time: str = ""
    event: str = ""
    node: str = ""
    subject: str = ""
    run: Optional[str] = None
    by: Optional[str] = None
    reason: Optional[Reason] = None
    data: Dict[str, Any] = field(default_factory=dict)

    def _nested(self) -> None:
        reason = self.raw.get("reason")
        self.reason = Reason.of(reason) if reason else None


@dataclass
class Outcome(Answer):
    """What became of one target of an operation."""

    target: str = ""
    state: str = ""
    reason: str = ""
    reason_code: str = ""
    hint: Optional[str] = None


@dataclass
class Operation(Answer):
    """A request that takes time: `pending`, `done`, `failed` or `cancelled`."""

    operation: str = ""
    verb: str = ""
    target: str = ""
    state: str = ""
    reason: str = ""
    reason_code: str = ""
    created_at: str = ""
    ended_at: Optional[str] = None
    outcomes: List[Outcome] = field(default_factory=list)
    data: Dict[str, Any] = field(default_factory=dict)

    def _nested(self) -> None:
        self.outcomes = [Outcome.of(one) for one in self.raw.get("outcomes", [])]


@dataclass
class Plan(Answer):
    """What applying files would do; `hash` names exactly this plan."""

    hash: str = ""
    file: str = ""
    node: str = ""
    session: str = ""
    changes: List[Dict[str, Any]] = field(default_factory=list)
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    runs_ended: int = 0
    warnings: List[str] = field(default_factory=list)


@dataclass
class Delivery(Answer):
    """One attempt to deliver an event to a webhook; without `error` it was taken."""

    id: str = ""
    event: str = ""
    attempt: int = 0
    at: str = ""
    took_ms: int = 0
    status: Optional[int] = None
    error: Optional[str] = None


@dataclass
class Webhook(Answer):
    """A webhook and how it fares."""

    session: str = ""
    name: str = ""
    url: str = ""
    events: List[str] = field(default_factory=list)
    targets: List[str] = field(default_factory=list)
    format: str = "v1"
    signed: bool = False
    state: str = ""
    waiting: int = 0
    delivered: int = 0
    given_up: int = 0
    dropped: int = 0
    deliveries: List[Delivery] = field(default_factory=list)

    def _nested(self) -> None:
        self.deliveries = [Delivery.of(one) for one in self.raw.get("deliveries", [])]


@dataclass
class Token(Answer):
    """A token; `token`, its text, is there only where it was just made."""

    name: str = ""
    id: str = ""
    scope: str = ""
    jobs: List[str] = field(default_factory=list)
    created_by: str = ""
    created_at: str = ""
    expires_at: Optional[str] = None
    token: Optional[str] = field(default=None, repr=False)

    def _nested(self) -> None:
        self.jobs = list(self.raw.get("for", []))


@dataclass
class User(Answer):
    """A user, who logs in with a password to get a key."""

    name: str = ""
    admin: bool = False
    key: Optional[str] = None
    created_at: str = ""
