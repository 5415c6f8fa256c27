"""Orders are files in a folder: made by the web program and the clock, taken away by workers."""

import os
import time

FOLDER = os.environ.get("ORDERS") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "state", "orders")


def add():
    """Makes an order; returns its number. The rename makes it appear in one step."""
    os.makedirs(FOLDER, exist_ok=True)
    number = time.time_ns()
    draft = os.path.join(FOLDER, f".{number}")
    with open(draft, "w", encoding="utf-8") as file:
        file.write("one loaf of bread\n")
    os.rename(draft, os.path.join(FOLDER, f"{number}.order"))
    return number


def take():
    """Takes the oldest order, or None. Two workers never get the same: only one rename succeeds."""
    for name in waiting():
        taken = os.path.join(FOLDER, f".taken-{os.getpid()}-{name}")
        try:
            os.rename(os.path.join(FOLDER, name), taken)
        except FileNotFoundError:
            continue
        os.unlink(taken)
        return name.removesuffix(".order")
    return None


def waiting():
    """Names of the orders that wait, oldest first."""
    try:
        return sorted(name for name in os.listdir(FOLDER) if name.endswith(".order"))
    except FileNotFoundError:
        return []


def count():
    """How many orders wait."""
    return len(waiting())
