"""A plugin in Python: for every run that failed it asks the daemon for the run's last lines and prints them.

Events come as JSON lines on standard input; the API is at GAFFER_URL, its
token in GAFFER_TOKEN_FILE. See docs/plugins.md.
"""

import http.client
import json
import os
import socket
import sys


class Daemon(http.client.HTTPConnection):
    """The API over the control socket."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=10)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.environ["GAFFER_URL"][len("unix:") :])

    def ask(self, path: str):
        with open(os.environ["GAFFER_TOKEN_FILE"], encoding="utf-8") as file:
            token = file.read().strip()
        self.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = self.getresponse()
        body = json.loads(answer.read())
        return body if answer.status == 200 else None


def main() -> None:
    for line in sys.stdin:
        event = json.loads(line)
        if event["event"] == "plugin.start":
            print(f"listening behind {event['cursor']}")
        elif event["event"] == "gap":
            print("some events were missed")
        elif event.get("data", {}).get("code") != "0":
            run = Daemon().ask(f"/v1/runs/{event['run']}") or {}
            words = " | ".join(run.get("last_lines") or []) or "nothing"
            print(f"{event['subject']}: {event['reason']['text']}; its last words: {words}")


if __name__ == "__main__":
    main()
