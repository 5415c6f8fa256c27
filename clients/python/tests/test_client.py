"""The client against a real gafferd. `GAFFER_TEST_BINS` names the folder with the programs."""

from __future__ import annotations

import http.server
import json
import os
import re
import sys
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from gaffer_client import (  # noqa: E402
    ApiError,
    Client,
    Conflict,
    NotAllowed,
    NotFound,
    Unreachable,
    UsageError,
)
from node import BINS, Node, wait_for  # noqa: E402


@unittest.skipUnless(BINS and os.path.exists(os.path.join(BINS, "gafferd")), "GAFFER_TEST_BINS names no gafferd")
class AgainstANode(unittest.TestCase):
    node: Node
    client: Client

    @classmethod
    def setUpClass(cls) -> None:
        cls.node = Node("--bind", "127.0.0.1:0")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.node.close()

    def setUp(self) -> None:
        self.client = Client(self.node.endpoint)
        self.session = re.sub(r"[^a-z0-9]", "-", self._testMethodName.lower())[:30].strip("-")

    def tearDown(self) -> None:
        for job in self.client.jobs(self.session):
            self.client.stop(job.session, job.job, force=True, wait=30)
            self.client.remove_job(job.session, job.job, wait=30)
        self.client.close()

    def test_jobs_are_put_scaled_stopped_and_removed(self) -> None:
        s, client = self.session, self.client
        done = client.put_job(s, "web", {"cmd": ["sleep", "600"]}, revision=0, wait=30)
        self.assertEqual(done.state, "done", done)
        job = client.job(s, "web")
        self.assertEqual((job.state, job.target, job.instances[0].state), ("running", 1, "running"))
        self.assertEqual(job.spec["cmd"], ["sleep", "600"])
        self.assertEqual(client.scale(s, "web", 3, wait=30).state, "done")
        self.assertEqual(client.scale(s, "web", "-1", wait=30).state, "done")
        self.assertEqual(client.job(s, "web").target, 2)
        self.assertEqual([one.job for one in client.jobs(s)], ["web"])
        self.assertEqual(next(one for one in client.sessions() if one.session == s).jobs, 1)
        self.assertTrue(all(one.memory_bytes > 0 for one in client.stats(s)))
        before = client.job(s, "web").instances[0].run
        self.assertEqual(client.restart(s, "web", wait=30).state, "done")
        self.assertNotEqual(client.job(s, "web").instances[0].run, before)
        self.assertEqual(client.stop(s, "web", wait=30).state, "done")
        self.assertEqual(client.start(s, "web", instance=1, wait=30).state, "done")
        self.assertEqual(client.remove_job(s, "web", wait=30).state, "done")
        self.assertEqual(client.jobs(s), [])

    def test_errors_are_exceptions_with_code_and_hint(self) -> None:
        s, client = self.session, self.client
        client.put_job(s, "web", {"cmd": ["sleep", "600"], "start": False})
        with self.assertRaises(NotFound) as caught:
            client.job(s, "wbe")
        self.assertEqual((caught.exception.code, caught.exception.status), ("job-not-found", 404))
        self.assertIn("did you mean `web`?", caught.exception.hint or "")
        with self.assertRaises(Conflict) as caught_conflict:
            client.put_job(s, "web", {"cmd": "x"}, revision=0)
        self.assertEqual(caught_conflict.exception.code, "job-exists")
        with self.assertRaises(UsageError) as caught_usage:
            client.put_job(s, "new", {"cmdd": "x"})
        self.assertEqual(caught_usage.exception.code, "invalid-config")
        self.assertIn("cmdd", caught_usage.exception.details[0]["message"])
        with self.assertRaises(ApiError):
            client.signal(s, "web", "NOSUCH")
        with self.assertRaises(Unreachable):
            Client("unix:/nowhere/gaffer.sock").node()
        with self.assertRaises(ValueError):
            Client("ftp://x")

    def test_runs_logs_input_and_signals(self) -> None:
        s, client = self.session, self.client
        client.put_job(s, "echo", {"cmd": ["cat"], "stdin": "pipe"}, wait=30)
        run = client.job(s, "echo").instances[0].run
        assert run is not None
        self.assertIn(run, [one.run for one in client.find_run(run)])
        lines = client.logs(s, "echo", follow=True)
        client.send_input(run, "grüße\nmore\n".encode())
        self.assertEqual([next(lines).text, next(lines).text], ["grüße", "more"])
        lines.close()
        self.assertEqual(client.output(run), "grüße\nmore\n".encode())
        self.assertEqual([line.text for line in client.logs(s, grep="^mo")], ["more"])
        client.run_signal(run, "KILL")
        ended = wait_for("the end", lambda: client.show_run(run) if client.show_run(run).signal else None)
        self.assertEqual((ended.signal, ended.cause), ("SIGKILL", "signal"))
        deaths = wait_for("its death", lambda: client.deaths(s, "echo"))
        self.assertEqual(deaths[0].run, run)

    def test_one_offs_give_their_exit_code(self) -> None:
        s, client = self.session, self.client
        client.put_job(s, "sh", {"cmd": "exit ${CODE:-0}", "shell": True, "start": False})
        done = client.run(s, "sh", env={"CODE": "7"}, wait=30)
        self.assertEqual(done.data.get("exit_code"), 7, done)

    def test_tokens_and_users_are_made_and_removed(self) -> None:
        client = self.client
        made = client.create_token("py", "read", jobs=["shop"], expires="1h")
        assert made.token is not None
        self.assertTrue(made.token.startswith("gaffer_"))
        self.assertNotIn(made.token, repr(made))
        self.assertEqual([(one.name, one.scope, one.jobs, one.token) for one in client.tokens()], [("py", "read", ["shop"], None)])
        self.assertIsNotNone(client.token("py").expires_at)
        with Client(self.node.url, token=made.token) as restricted:
            with self.assertRaises(NotAllowed):
                restricted.put_job("shop", "web", {"cmd": "sleep 1"})
        with self.assertRaises(Conflict):
            client.create_token("py", "read")
        client.remove_token("py")
        with self.assertRaises(NotFound):
            client.token("py")
        user = client.create_user("ana", "pass:word", "operate", jobs=["shop"])
        self.assertEqual((user.name, user.admin), ("ana", False))
        self.assertEqual([one.name for one in client.users()], ["ana"])
        client.set_password("ana", "other")
        self.assertEqual(client.user("ana").name, "ana")
        client.remove_user("ana")
        self.assertEqual(client.users(), [])

    def test_a_watch_goes_on_when_the_daemon_is_replaced(self) -> None:
        node = Node("--bind", "127.0.0.1:0")
        try:
            client = Client(node.endpoint)
            client.put_job("w", "one", {"cmd": "sleep 600", "start": False})
            watcher = Client(node.endpoint).watch(after="start", filter="job.added,gap", pause=0.05)
            self.assertEqual(next(watcher).subject, "w.one")
            client.put_job("w", "two", {"cmd": "sleep 600", "start": False})
            self.assertEqual(next(watcher).subject, "w.two")
            node.restart()
            client = Client(node.endpoint)
            client.put_job("w", "three", {"cmd": "sleep 600", "start": False})
            seen = []
            while "w.three" not in seen:
                seen.append(next(watcher).subject)
            self.assertNotIn("w.two", seen)
            watcher.close()
        finally:
            node.close()

    def test_events_are_followed_from_a_cursor(self) -> None:
        s, client = self.session, self.client
        follower = Client(self.node.endpoint)
        seen = follower.events(after="start", follow=True, filter="job.added,job.removed")
        client.put_job(s, "a", {"cmd": "true", "start": False})
        first = next(event for event in seen if event.subject == f"{s}.a")
        self.assertEqual(first.event, "job.added")
        client.remove_job(s, "a", wait=30)
        self.assertEqual(next(event for event in seen if event.subject == f"{s}.a").event, "job.removed")
        seen.close()
        behind = [event for event in client.events(after=first.cursor) if event.subject == f"{s}.a"]
        self.assertNotIn("job.added", [event.event for event in behind])
        self.assertIn("job.removed", [event.event for event in behind])

    def test_files_are_planned_and_applied(self) -> None:
        s, client = self.session, self.client
        file = self.node.root / f"{s}.toml"
        file.write_text(f'session = "{s}"\n[job.web]\ncmd = "sleep 600"\nstart = false\n')
        plan = client.plan(file)
        self.assertEqual((plan.added, plan.removed), (1, 0))
        self.assertEqual(client.apply(file, hash=plan.hash, wait=30).state, "done")
        self.assertEqual(client.job(s, "web").file, str(file))
        with self.assertRaises(Conflict):
            client.apply(file, hash="00000000")
        file.write_text(f'session = "{s}"\n')
        self.assertEqual(client.apply(file, wait=30).state, "done")
        self.assertEqual(client.jobs(s), [])

    def test_webhooks_are_shown_and_tested(self) -> None:
        s, client = self.session, self.client
        got = []

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        file = self.node.root / f"{s}.toml"
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            file.write_text(f'session = "{s}"\n[webhook.ops]\nurl = "{url}"\nevents = ["job.added"]\n')
            client.apply(file)
            self.assertEqual(client.test_webhook(s, "ops").status, 204)
            client.put_job(s, "a", {"cmd": "true", "start": False})
            wait_for("the event", lambda: [one for one in got if one["subject"] == f"{s}.a"])
            hook = wait_for("counted", lambda: client.webhook(s, "ops") if client.webhook(s, "ops").delivered else None)
            self.assertEqual((hook.url, hook.deliveries[0].event), (url, "job.added"))
            self.assertIn("ops", [one.name for one in client.webhooks()])
        finally:
            file.write_text(f'session = "{s}"\n')
            client.apply(file)
            server.shutdown()
            server.server_close()

    def test_tcp_is_as_good_as_the_socket(self) -> None:
        address = re.search(r"listen=([0-9.:]+)", self.node.ready)
        assert address is not None
        with Client(f"http://{address.group(1)}") as client:
            self.assertEqual(client.node()["pid"], self.node.daemon.pid)
            self.assertTrue(client.doctor())

    def test_a_kept_connection_that_was_closed_is_replaced(self) -> None:
        self.client.node()
        kept = self.client._transport._kept
        assert kept is not None and kept.sock is not None
        kept.sock.close()
        self.client._transport.close()
        self.assertEqual(self.client.node()["pid"], self.node.daemon.pid)


if __name__ == "__main__":
    unittest.main()
