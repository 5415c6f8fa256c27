"""A resident worker: one line of JSON for each task in, one for each outcome out."""

import json
import sys
import threading

out = threading.Lock()


def say(message):
    with out:
        print(json.dumps(message), flush=True)


def work(task):
    about = {"id": task["id"], "token": task["token"]}
    try:
        name = task["payload"]["name"]
        say({"type": "done", "result": {"greeting": f"hello {name}"}, **about})
    except Exception as error:  # whatever it is: the queue decides whether it is tried again
        say({"type": "fail", "error": {"kind": type(error).__name__, "message": str(error)}, **about})


def main():
    threads = []
    # The end of the file means: finish what you have, then leave.
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "task":
            thread = threading.Thread(target=work, args=(message,))
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
