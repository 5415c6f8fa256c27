"""The shop's web program: takes orders, and says whether it is up.

GET /up      200 when it can take orders
GET /        a greeting and the number of orders taken
POST /order  one more order for the workers
"""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orders


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/up":
            self.answer(200, "up")
        elif self.path == "/":
            greeting = os.environ.get("GREETING", "Welcome")
            self.answer(200, f"{greeting}: {orders.count()} orders wait")
        else:
            self.answer(404, "there is nothing here")

    def do_POST(self):
        if self.path == "/order":
            number = orders.add()
            print(f"order {number} taken", flush=True)
            self.answer(201, f"order {number}")
        else:
            self.answer(404, "there is nothing here")

    def log_message(self, form, *values):
        # Probes come often and say nothing new.
        if self.path != "/up":
            sys.stderr.write("%s %s\n" % (self.address_string(), form % values))


def main():
    port = int(os.environ.get("PORT", "0"))
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    # shutdown() waits for the serving loop, so it must not be called from it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"the shop is open at http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()
    print("the shop is closed", flush=True)


if __name__ == "__main__":
    main()
