"""The client: one method per thing that can be asked."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union
from urllib.parse import quote, urlencode

from .errors import ProtocolError, Unreachable
from .transport import Transport
from .types import Answer, Delivery, Event, Job, LogLine, Operation, Plan, Run, Session, Stats, Token, User, Webhook

T = TypeVar("T", bound=Answer)
Params = Dict[str, Optional[Union[str, int, bool]]]


def default_endpoint() -> str:
    """Where the local daemon is: `GAFFER_URL`, `GAFFER_SOCKET`, else the socket of this user."""
    url = os.environ.get("GAFFER_URL")
    if url:
        return url
    path = os.environ.get("GAFFER_SOCKET")
    if path:
        return f"unix:{path}"
    if os.geteuid() == 0:
        return "unix:/run/gaffer/gaffer.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"unix:{runtime}/gaffer/gaffer.sock" if runtime else f"unix:/tmp/gaffer-{os.geteuid()}/gaffer.sock"


class Client:
    """Talks to one daemon. Not for several threads at once: give each its own.

    `endpoint` is `unix:PATH`, `http://HOST:PORT` or `https://HOST:PORT`; `timeout` is in seconds, for each request that is
    no stream and besides what `wait` says.
    """

    def __init__(
        self,
        endpoint: Optional[str] = None,
        *,
        token: Optional[str] = None,
        timeout: Optional[float] = 60.0,
        ca_file: Optional[str] = None,
        client_cert: Optional[Tuple[str, str]] = None,
    ) -> None:
        self._timeout = timeout
        self._transport = Transport(endpoint or default_endpoint(), token, timeout, ca_file, client_cert)

    @property
    def endpoint(self) -> str:
        """Where it connects to."""
        return self._transport.endpoint

    def close(self) -> None:
        """Closes the kept connection; the client can go on to be used."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ── any route ──

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Optional[Dict[str, str]] = None,
        wait: Optional[float] = None,
    ) -> Any:
        """Any route with a JSON answer; none if it is empty."""
        timeout = None if wait is None or self._timeout is None else self._timeout + wait
        _, answer = self._transport.request(method, path, body, headers=headers, timeout=timeout)
        return _json(answer) if answer else None

    def _list(self, path: str, params: Params, kind: Type[T]) -> List[T]:
        found: List[T] = []
        next_path: Optional[str] = path + _query(params)
        while next_path:
            headers, answer = self._transport.request("GET", next_path)
            found.extend(kind.of(one) for one in _json(answer))
            next_path = _next(headers.get("Link"))
        return found

    def _operation(self, method: str, path: str, body: Any, wait: Optional[float], **params: Any) -> Operation:
        query: Params = dict(params)
        if wait is not None:
            query["wait"] = f"{int(wait * 1000)}ms"
        return Operation.of(self.request(method, path + _query(query), body, wait=wait))

    def _lines(self, path: str, params: Params, kind: Type[T]) -> Iterator[T]:
        for line in self._transport.stream(path + _query(params), "application/jsonl"):
            # An empty line is a sign of life.
            if line.strip():
                yield kind.of(_json(line))

    # ── jobs ──

    def sessions(self) -> List[Session]:
        """All sessions."""
        return self._list("/v1/sessions", {}, Session)

    def jobs(
        self, session: Optional[str] = None, *, state: Optional[str] = None, label: Optional[str] = None
    ) -> List[Job]:
        """All jobs, or those of a session, in a state, with a label `key=value`."""
        return self._list("/v1/jobs", {"session": session, "state": state, "label": label}, Job)

    def job(self, session: str, job: str) -> Job:
        """One job with its definition."""
        return Job.of(self.request("GET", _job(session, job) + _query({"spec": True})))

    def put_job(
        self,
        session: str,
        job: str,
        spec: Mapping[str, Any],
        *,
        revision: Optional[int] = None,
        over_file: bool = False,
        wait: Optional[float] = None,
    ) -> Operation:
        """Adds a job or replaces its definition, with the keys of `[job.X]`.

        With `revision` only that one is replaced; 0 means that there must be none.
        """
        path = _job(session, job)
        query: Params = {"over_file": True if over_file else None}
        if wait is not None:
            query["wait"] = f"{int(wait * 1000)}ms"
        headers = None if revision is None else {"If-Match": f'"{revision}"'}
        answer = self.request("PUT", path + _query(query), dict(spec), headers=headers, wait=wait)
        return Operation.of(answer)

    def remove_job(self, session: str, job: str, *, wait: Optional[float] = None) -> Operation:
        """Stops a job and forgets it."""
        return self._operation("DELETE", _job(session, job), None, wait)

    def _act(
        self, verb: str, session: str, job: str, instance: Optional[int], body: Dict[str, Any], wait: Optional[float]
    ) -> Operation:
        return self._operation("POST", f"{_job(session, job, instance)}/{verb}", body, wait)

    def start(self, session: str, job: str, *, instance: Optional[int] = None, wait: Optional[float] = None) -> Operation:
        """Wishes it up."""
        return self._act("start", session, job, instance, {}, wait)

    def stop(
        self,
        session: str,
        job: str,
        *,
        instance: Optional[int] = None,
        force: bool = False,
        grace: Optional[float] = None,
        wait: Optional[float] = None,
    ) -> Operation:
        """Wishes it down; `grace` (seconds) stands for `stop.timeout`, `force` kills now."""
        return self._act("stop", session, job, instance, _how(force, grace), wait)

    def restart(
        self,
        session: str,
        job: str,
        *,
        instance: Optional[int] = None,
        force: bool = False,
        grace: Optional[float] = None,
        wait: Optional[float] = None,
    ) -> Operation:
        """Stops it, then starts it."""
        return self._act("restart", session, job, instance, _how(force, grace), wait)

    def reload(
        self, session: str, job: str, *, how: Optional[str] = None, wait: Optional[float] = None
    ) -> Operation:
        """Rolls it out anew: as the definition says, or `surge`, `rolling`, `restart`, `signal`."""
        return self._act("reload", session, job, None, {"how": how} if how else {}, wait)

    def pause(self, session: str, job: str, *, wait: Optional[float] = None) -> Operation:
        """Freezes its processes."""
        return self._act("pause", session, job, None, {}, wait)

    def resume(self, session: str, job: str, *, wait: Optional[float] = None) -> Operation:
        """Thaws its processes."""
        return self._act("resume", session, job, None, {}, wait)

    def scale(
        self, session: str, job: str, to: Union[int, str], *, force: bool = False, wait: Optional[float] = None
    ) -> Operation:
        """Sets the number of instances: `3`, `"+1"`, `"-2"`, or `"auto"` for the file's."""
        text = f"={to}" if isinstance(to, int) else to
        return self._act("scale", session, job, None, {"to": text, "force": force}, wait)

    def signal(
        self, session: str, job: str, signal: str, *, instance: Optional[int] = None, to: Optional[str] = None
    ) -> Operation:
        """Sends a signal by name to all runs; `to` is `main`, `group`, `children` or `all`."""
        body: Dict[str, Any] = {"signal": signal}
        if to is not None:
            body["to"] = to
        return self._act("signal", session, job, instance, body, None)

    def run(
        self,
        session: str,
        job: str,
        *,
        args: Sequence[str] = (),
        env: Optional[Mapping[str, str]] = None,
        stdin: bool = False,
        wait: Optional[float] = None,
    ) -> Operation:
        """Runs a job once more, beside its instances; `data["exit_code"]` of the operation is the program's."""
        body: Dict[str, Any] = {"args": list(args), "env": dict(env or {}), "stdin": stdin}
        return self._act("run", session, job, None, body, wait)

    def operation(self, operation: str, *, wait: Optional[float] = None) -> Operation:
        """An operation, or what came of it within `wait` seconds."""
        return self._operation("GET", f"/v1/operations/{_part(operation)}", None, wait)

    # ── runs ──

    def find_run(self, prefix: str) -> List[Run]:
        """Runs whose id begins so."""
        return [Run.of(one) for one in self.request("GET", "/v1/runs" + _query({"prefix": prefix}))]

    def show_run(self, run: str) -> Run:
        """One run."""
        return Run.of(self.request("GET", f"/v1/runs/{_part(run)}"))

    def deaths(self, session: str, job: str, *, limit: int = 10) -> List[Run]:
        """How its last runs ended, newest first."""
        answer = self.request("GET", f"{_job(session, job)}/deaths" + _query({"limit": limit}))
        return [Run.of(one) for one in answer]

    def run_signal(self, run: str, signal: str) -> None:
        """Sends a signal to one run."""
        self.request("POST", f"/v1/runs/{_part(run)}/signal", {"signal": signal})

    def send_input(self, run: str, data: bytes, *, stream: Optional[str] = None, eof: bool = False) -> None:
        """Writes to the standard input of a run, or to one of its streams."""
        query = _query({"stream": stream, "eof": True if eof else None})
        self._transport.request("POST", f"/v1/runs/{_part(run)}/input{query}", data=data)

    def output(self, run: str, stream: str = "stdout") -> bytes:
        """All kept output of a run."""
        _, answer = self._transport.request(
            "GET", f"/v1/runs/{_part(run)}/logs/{_part(stream)}", headers={"Accept": "*/*"}
        )
        return answer

    # ── what flows ──

    def logs(
        self,
        session: str,
        job: Optional[str] = None,
        *,
        follow: bool = False,
        tail: Optional[int] = None,
        since: Optional[str] = None,
        grep: Optional[str] = None,
        stream: Optional[str] = None,
        instance: Optional[int] = None,
        run: Optional[str] = None,
    ) -> Iterator[LogLine]:
        """Lines of a job, or of all jobs of a session; with `follow` also those to come, until the iterator is closed."""
        params: Params = {
            "follow": True if follow else None,
            "tail": tail,
            "since": since,
            "grep": grep,
            "stream": stream,
        }
        if job is None:
            params["session"] = session
            return self._lines("/v1/logs", params, LogLine)
        params["instance"], params["run"] = instance, run
        return self._lines(f"{_job(session, job)}/logs", params, LogLine)

    def events(
        self, *, after: Optional[str] = None, follow: bool = False, filter: Optional[str] = None
    ) -> Iterator[Event]:
        """Events behind a cursor (`start`, `end`, or an event's); `filter` is `"run.*,job.failed"`.

        Without `follow` those that are kept. To miss nothing over a lost connection, go on behind the last `cursor`.
        """
        params: Params = {"after": after, "follow": True if follow else None, "filter": filter}
        return self._lines("/v1/events", params, Event)

    def watch(
        self, *, after: str = "end", filter: Optional[str] = None, pause: float = 0.5
    ) -> Iterator[Event]:
        """Events behind a cursor and all to come, also over lost connections and daemons that are replaced.

        They come as server-sent events. After `pause` seconds a connection that is gone is made again behind the last event; what
        could not be had any more is one event `gap`. It ends when the iterator is closed, or with what the daemon refuses.
        """
        while True:
            params: Params = {"after": after, "follow": True, "filter": filter}
            try:
                for cursor, event in _server_sent(
                    self._transport.stream("/v1/events" + _query(params), "text/event-stream")
                ):
                    yield Event.of(_json(event))
                    # Only what was taken is behind us.
                    after = cursor or after
            except (Unreachable, ProtocolError):
                pass
            time.sleep(pause)

    def stats(self, session: Optional[str] = None, job: Optional[str] = None) -> List[Stats]:
        """A sample of every live run, or of those of a session or job."""
        return self._list("/v1/stats", {"session": session, "job": job}, Stats)

    # ── files ──

    def plan(self, file: Union[str, "os.PathLike[str]"], *, prune: bool = False, **options: Any) -> Plan:
        """What applying a file would do."""
        body = {"bundle": bundle(file, **options), "prune": prune}
        return Plan.of(self.request("POST", "/v1/plan", body))

    def apply(
        self,
        file: Union[str, "os.PathLike[str]"],
        *,
        hash: Optional[str] = None,
        prune: bool = False,
        wait: Optional[float] = None,
        **options: Any,
    ) -> Operation:
        """Makes the node as a file says; with `hash` only if that is still the plan."""
        body: Dict[str, Any] = {"bundle": bundle(file, **options), "prune": prune}
        if hash is not None:
            body["hash"] = hash
        answer = self._operation("POST", "/v1/apply", body, wait)
        return answer

    # ── who may ──

    def tokens(self) -> List[Token]:
        """All tokens."""
        return self._list("/v1/tokens", {}, Token)

    def token(self, name: str) -> Token:
        """One token."""
        return Token.of(self.request("GET", f"/v1/tokens/{_part(name)}"))

    def create_token(
        self, name: str, scope: str, *, jobs: Sequence[str] = (), expires: Optional[str] = None
    ) -> Token:
        """Makes a token of scope `read`, `operate` or `admin`, for `jobs` (`shop`, `shop.web`, `shop.*`) or all, that lives
        for `expires` (`"30d"`) or until it is revoked. Its `token` is not shown again."""
        body: Dict[str, Any] = {"name": name, "scope": scope, "for": list(jobs)}
        if expires is not None:
            body["expires"] = expires
        return Token.of(self.request("POST", "/v1/tokens", body))

    def remove_token(self, name: str) -> None:
        """Revokes a token, with what was made by it: their live streams end."""
        self.request("DELETE", f"/v1/tokens/{_part(name)}")

    def users(self) -> List[User]:
        """All users."""
        return self._list("/v1/users", {}, User)

    def user(self, name: str) -> User:
        """One user."""
        return User.of(self.request("GET", f"/v1/users/{_part(name)}"))

    def create_user(self, name: str, password: str, scope: str, *, jobs: Sequence[str] = ()) -> User:
        """Makes a user with a key that allows what a token of this scope would."""
        body = {"name": name, "password": password, "scope": scope, "for": list(jobs)}
        return User.of(self.request("POST", "/v1/users", body))

    def set_password(self, name: str, password: str) -> None:
        """Gives a user another password."""
        self.request("PUT", f"/v1/users/{_part(name)}", {"password": password})

    def remove_user(self, name: str) -> None:
        """Forgets a user."""
        self.request("DELETE", f"/v1/users/{_part(name)}")

    # ── the node ──

    def node(self) -> Dict[str, Any]:
        """About the daemon."""
        return dict(self.request("GET", "/v1/node"))

    def doctor(self) -> List[Dict[str, Any]]:
        """The checks of `gaffer doctor`."""
        return list(self.request("GET", "/v1/doctor")["checks"])

    def plugins(self) -> List[Dict[str, Any]]:
        """Plugins."""
        return list(self.request("GET", "/v1/plugins"))

    def webhooks(self) -> List[Webhook]:
        """All webhooks."""
        return self._list("/v1/webhooks", {}, Webhook)

    def webhook(self, session: str, name: str) -> Webhook:
        """One webhook with its last deliveries."""
        return Webhook.of(self.request("GET", f"/v1/webhooks/{_part(session)}/{_part(name)}"))

    def test_webhook(self, session: str, name: str) -> Delivery:
        """Sends it a `webhook.test` event now; how it went."""
        return Delivery.of(self.request("POST", f"/v1/webhooks/{_part(session)}/{_part(name)}/test", {}))


def bundle(
    file: Union[str, "os.PathLike[str]"],
    *,
    profiles: Sequence[str] = (),
    vars: Optional[Mapping[str, str]] = None,
    further: Sequence[Union[str, "os.PathLike[str]"]] = (),
) -> Dict[str, Any]:
    """A file as the daemon wants it: its text and absolute path. What it includes is named in `further`."""
    paths = [Path(os.path.abspath(one)) for one in (file, *further)]
    return {
        "root": str(paths[0]),
        "files": {str(path): path.read_text(encoding="utf-8") for path in paths},
        "profiles": list(profiles),
        "vars": dict(vars or {}),
    }


def _part(text: str) -> str:
    return quote(text, safe="")


def _job(session: str, job: str, instance: Optional[int] = None) -> str:
    base = f"/v1/jobs/{_part(session)}/{_part(job)}"
    return base if instance is None else f"{base}/instances/{instance}"


def _how(force: bool, grace: Optional[float]) -> Dict[str, Any]:
    body: Dict[str, Any] = {"force": force}
    if grace is not None:
        body["grace_ms"] = int(grace * 1000)
    return body


def _server_sent(lines: Iterator[bytes]) -> Iterator[Tuple[Optional[str], bytes]]:
    """Ids and data of server-sent events."""
    cursor: Optional[str] = None
    data: List[bytes] = []
    for line in lines:
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"id":
            cursor = value.decode()
        elif name == b"data":
            data.append(value)
        elif not line.strip() and data:
            yield cursor, b"\n".join(data)
            data = []


def _query(params: Params) -> str:
    def shown(value: Union[str, int, bool]) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    pairs = [(key, shown(value)) for key, value in params.items() if value is not None]
    return f"?{urlencode(pairs)}" if pairs else ""


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"the answer is no JSON: {error}") from error


def _next(link: Optional[str]) -> Optional[str]:
    found = re.search(r'<([^>]*)>\s*;\s*rel="next"', link or "")
    return found.group(1) if found else None
