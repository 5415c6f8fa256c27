#!/usr/bin/env python3
"""Prints every end of a run that was not a success, for ever, and misses none while the daemon keeps them."""

import sys
import time

from gaffer_client import Client, GafferError


def main() -> None:
    cursor = "end"
    with Client() as gaffer:
        while True:
            try:
                for event in gaffer.events(after=cursor, follow=True, filter="run.exited"):
                    cursor = event.cursor
                    if event.event == "gap":
                        print("some were missed", file=sys.stderr)
                    elif event.data.get("code") != "0":
                        print(event.time, event.subject, event.reason.text if event.reason else "")
            except GafferError as error:
                print(error, file=sys.stderr)
            time.sleep(1)


if __name__ == "__main__":
    main()
