"""HTTP/1.1 over a unix socket, TCP or TLS, with `http.client`."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any, Dict, Iterator, Optional, Tuple
from urllib.parse import urlsplit

from .errors import ProtocolError, Unreachable, of_status

#: Largest answer that is read whole.
ANSWER_BYTES_MAX = 64 << 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: Optional[float]) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            self.sock = None
            raise


class Transport:
    """Sends requests to one endpoint. One kept connection is used for answers that are read whole."""

    def __init__(
        self,
        endpoint: str,
        token: Optional[str],
        timeout: Optional[float],
        ca_file: Optional[str],
        client_cert: Optional[Tuple[str, str]],
    ) -> None:
        self.endpoint = endpoint
        self._token = token
        self._timeout = timeout
        self._kept: Optional[http.client.HTTPConnection] = None
        self._tls: Optional[ssl.SSLContext] = None
        scheme = endpoint.split(":", 1)[0]
        if scheme == "https":
            self._tls = ssl.create_default_context(cafile=ca_file)
            if client_cert is not None:
                self._tls.load_cert_chain(client_cert[0], client_cert[1])
        elif scheme not in ("http", "unix"):
            raise ValueError(f"{endpoint!r} is no endpoint: unix:PATH, http://HOST:PORT or https://HOST:PORT")

    def close(self) -> None:
        """Closes the kept connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connection(self, timeout: Optional[float]) -> http.client.HTTPConnection:
        if self.endpoint.startswith("unix:"):
            return _UnixConnection(self.endpoint[len("unix:") :], timeout)
        parts = urlsplit(self.endpoint)
        host = parts.hostname or "localhost"
        if self._tls is not None:
            return http.client.HTTPSConnection(host, parts.port or 443, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, parts.port or 5000, timeout=timeout)

    def _headers(self, extra: Dict[str, str]) -> Dict[str, str]:
        headers = {"Accept": "application/json", "X-Gaffer": "python"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        headers.update(extra)
        return headers

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Dict[str, str],
    ) -> http.client.HTTPResponse:
        try:
            if connection.sock is None:
                connection.connect()
        except (OSError, ssl.SSLError) as error:
            connection.close()
            raise Unreachable(self.endpoint, str(error)) from error
        try:
            connection.request(method, path, body=body, headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: Optional[bytes] = None,
        headers: Optional[Dict[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> Tuple[http.client.HTTPMessage, bytes]:
        """Sends a request and reads the answer whole."""
        extra = dict(headers or {})
        if data is not None:
            extra["Content-Type"] = "application/octet-stream"
        elif body is not None:
            data = json.dumps(body).encode()
            extra["Content-Type"] = "application/json"
        sent = self._headers(extra)
        wait = self._timeout if timeout is None else timeout
        connection, again = self._kept, self._kept is not None
        self._kept = None
        if connection is None:
            connection = self._connection(wait)
        elif connection.sock is not None:
            connection.sock.settimeout(wait)
        try:
            response = self._send(connection, method, path, data, sent)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            # A kept connection that the daemon had closed: only a request that repeats nothing is sent again.
            if not again or method not in ("GET", "HEAD"):
                raise ProtocolError(f"the connection ended without an answer: {error}") from error
            connection = self._connection(wait)
            response = self._checked(connection, method, path, data, sent)
        except (OSError, http.client.HTTPException) as error:
            raise ProtocolError(f"no answer: {error}") from error
        try:
            answer = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ProtocolError(f"the answer broke off: {error}") from error
        if len(answer) > ANSWER_BYTES_MAX:
            connection.close()
            raise ProtocolError("the answer is too large")
        if response.will_close:
            connection.close()
        else:
            self._kept = connection
        if response.status >= 400:
            raise of_status(response.status, _error_of(answer))
        return response.headers, answer

    def _checked(self, connection, method, path, data, sent) -> http.client.HTTPResponse:
        try:
            return self._send(connection, method, path, data, sent)
        except (OSError, http.client.HTTPException) as error:
            raise ProtocolError(f"no answer: {error}") from error

    def stream(self, path: str, accept: str) -> Iterator[bytes]:
        """Lines of an answer as they come, on a connection of its own; it ends with the iterator."""
        connection = self._connection(None)
        try:
            headers = self._headers({"Accept": accept})
            response = self._checked(connection, "GET", path, None, headers)
            if response.status >= 400:
                raise of_status(response.status, _error_of(response.read(ANSWER_BYTES_MAX)))
            while True:
                try:
                    line = response.readline()
                except (OSError, http.client.HTTPException) as error:
                    raise ProtocolError(f"the stream broke off: {error}") from error
                if not line:
                    return
                yield line
        finally:
            connection.close()


def _error_of(body: bytes) -> Dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": str(error)}
