# SPDX-License-Identifier: Apache-2.0
"""Programs that were not written for us: the Go SDK of Ziti behind ziti-app, driven line by line."""
import json
import os
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

from harness import ROOT, Admin, pids_of, wait_for

APP = Path(os.environ.get("SALLY_ZITI_APP", ROOT / "build/interop/ziti-app"))


class Refused(Exception):
    """The SDK returned an error; its text."""


def enroll(token, folder, *options):
    """An identity file that the SDK made from a token of ours; Refused with what it said."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "token").write_text(token)
    identity = folder / "identity.json"
    run = subprocess.run([APP, "enroll", *options, folder / "token", identity], capture_output=True, text=True, timeout=60, check=False)
    if run.returncode != 0:
        assert not identity.exists()
        raise Refused(run.stderr)
    return identity


class App:
    """`ziti-app run`: one context of the SDK in a process of its own."""

    def __init__(self, identity, *options):
        self.log = identity.with_suffix(".log")
        with self.log.open("a") as log:
            self.process = subprocess.Popen([APP, "run", *options, identity], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
        self.asked = 0
        self.said = []  # grows only; both threads use it through its own methods
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def start(self, *words):
        """Says a command; its number."""
        self.asked += 1
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        return self.asked

    def answer(self, number, timeout=30):
        def find():
            return next((s for s in list(self.said) if s.get("re") == number), None)

        said = wait_for(find, timeout, f"answer {number}; the SDK logs to {self.log}")
        if "error" in said:
            raise Refused(said["error"])
        return said

    def ask(self, *words, timeout=30):
        return self.answer(self.start(*words), timeout)

    def events(self, kind):
        return [s for s in list(self.said) if s.get("event") == kind]

    def await_event(self, kind, timeout=30, count=1, **fields):
        def find():
            found = [e for e in self.events(kind) if all(e.get(k) == v for k, v in fields.items())]
            return found[count - 1] if len(found) >= count else None

        return wait_for(find, timeout, f"event {kind} {fields}; the SDK logs to {self.log}")

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.reader.join(5)
        self.process.stdout.close()


class Apps:
    """Ziti identities of one network; stops what it started."""

    def __init__(self, net, folder):
        self.net, self.folder = net, folder
        self.running = []
        self.ids = {}

    def identity(self, name, tags=(), *options):
        token = self.net.sally("device", "add", name, *[x for t in tags for x in ("--tag", t)])[0]
        self.ids[name] = token["id"]
        return enroll(token["token"], self.folder / name, *options)

    def run(self, identity, *options):
        app = App(identity, *options)
        self.running.append(app)
        return app

    def add(self, name, tags=(), *options):
        return self.run(self.identity(name, tags), *options)

    def stop(self):
        for app in self.running:
            app.stop()


@contextmanager
def apps_of(net, folder):
    apps = Apps(net, folder)
    try:
        yield apps
    finally:
        apps.stop()


def kill(net, program):
    """Kills a program of the network as a crash would; back when its supervisor has started the next."""
    killed = net.pid(program)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: set(pids_of(net.context).get(program, [])) - {killed}, what=f"{program} comes back")


def add_service(net, name, e2e, allow=(), host=(), **configs):
    """A service for foreign ends; its id. `host_config`, `intercept_config`: what SDKs are given with it."""
    with Admin(net) as admin:
        return admin.call("POST", "/fleet/v1/services", {"name": name, "e2e": e2e, "allow": list(allow), "host": list(host), **configs}, 201)["id"]
