"""The shop's worker: takes one order after the other."""

import argparse
import signal
import time

import orders

stopping = False


def stop(*_):
    global stopping
    stopping = True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="worker")
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, stop)
    print(f"{name} is here", flush=True)
    while not stopping:
        number = orders.take()
        if number is None:
            time.sleep(0.2)
            continue
        print(f"{name} packs order {number}", flush=True)
        time.sleep(0.3)
        print(f"{name} sent order {number}", flush=True)
    print(f"{name} goes home", flush=True)


if __name__ == "__main__":
    main()
