"""Does tasks of snappea: their kind names a function, `module.function`, their payload has its arguments.

In a Django project, put `import django; django.setup()` first, and set DJANGO_SETTINGS_MODULE.
"""

import importlib
import json
import sys
import threading
import traceback

out = threading.Lock()


def say(message):
    with out:
        print(json.dumps(message), flush=True)


def function_of(name):
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)


def work(task):
    about = {"id": task["id"], "token": task["token"]}
    try:
        function = function_of(task["kind"] or "")
    except (ImportError, AttributeError, ValueError) as error:
        # There will be no such function the next time either.
        unknown = {"kind": "unknown-kind", "message": f"{task['kind']}: {error}"}
        return say({"type": "fail", "error": unknown, "fatal": True, **about})
    try:
        function(*task["payload"]["args"], **task["payload"]["kwargs"])
    except Exception as error:  # whatever it is: the queue decides whether it is tried again
        traceback.print_exc()
        return say({"type": "fail", "error": {"kind": type(error).__name__, "message": str(error)}, **about})
    say({"type": "done", **about})


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
