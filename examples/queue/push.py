"""Pushes tasks over the daemon's socket and waits for the last one: nothing but the standard library."""

import http.client
import json
import os
import socket
import sys


class Daemon(http.client.HTTPConnection):
    """HTTP over the control socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def ask(daemon, method, path, body=None):
    daemon.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
    answer = daemon.getresponse()
    document = json.loads(answer.read())
    if answer.status >= 400:
        sys.exit(document["error"]["message"])
    return document


def main():
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run")
    daemon = Daemon(os.environ.get("GAFFER_SOCKET", f"{runtime}/gaffer/gaffer.sock"))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    tasks = [{"payload": {"name": f"guest {n}"}} for n in range(count)]
    pushed = ask(daemon, "POST", "/v1/queues/example/greet/tasks", tasks)
    print("pushed", len(pushed), "tasks, the last one is", pushed[-1]["id"])
    outcome = ask(daemon, "GET", f"/v1/tasks/{pushed[-1]['id']}/wait?wait=30s")
    print(outcome["state"], outcome["result"])


if __name__ == "__main__":
    main()
