"""The shop's clock: every few seconds a regular customer orders bread."""

import os
import time

import orders


def main():
    every = float(os.environ.get("CLOCK_EVERY", "2"))
    print(f"an order every {every:g} s", flush=True)
    while True:
        print(f"tick: order {orders.add()}", flush=True)
        time.sleep(every)


if __name__ == "__main__":
    main()
