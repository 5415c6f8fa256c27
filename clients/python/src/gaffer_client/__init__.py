"""A small typed client of gafferd, with the standard library only.

    from gaffer_client import Client

    with Client() as gaffer:                     # the local daemon's socket
        gaffer.put_job("shop", "web", {"cmd": "bin/web"})
        gaffer.scale("shop", "web", 3)
        for line in gaffer.logs("shop", "web", follow=True):
            print(line.text)
"""

from .client import Client, default_endpoint
from .errors import (
    ApiError,
    Conflict,
    Failed,
    GafferError,
    NotAllowed,
    NotFound,
    ProtocolError,
    Unreachable,
    UsageError,
)
from .types import (
    Delivery,
    Event,
    Instance,
    Job,
    LogLine,
    Operation,
    Outcome,
    Plan,
    Reason,
    Run,
    Session,
    Stats,
    Token,
    User,
    Webhook,
)

__all__ = [
    "ApiError",
    "Client",
    "Conflict",
    "Delivery",
    "Event",
    "Failed",
    "GafferError",
    "Instance",
    "Job",
    "LogLine",
    "NotAllowed",
    "NotFound",
    "Operation",
    "Outcome",
    "Plan",
    "ProtocolError",
    "Reason",
    "Run",
    "Session",
    "Stats",
    "Token",
    "Unreachable",
    "UsageError",
    "User",
    "Webhook",
    "default_endpoint",
]

__version__ = "0.1.0"
