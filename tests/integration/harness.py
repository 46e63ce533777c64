# SPDX-License-Identifier: Apache-2.0
"""A real network on loopback: the built programs, started as a user starts them, in a folder that goes away."""
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import shutil
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("SALLY_BIN", ROOT / "build/release/bin"))
SALLY = str(BIN / "sally")
BENCH = BIN if (BIN / "bench_load").exists() else ROOT / "build/release/bin"
EXAMPLES = BIN if (BIN / "echo-client").exists() else ROOT / "build/release/bin"  # a sanitized build has none


def wait_for(done, seconds=10.0, what="condition", every=0.02):
    """The value of `done()` once it is true; polls; fails loudly."""
    until = time.monotonic() + seconds
    while True:
        value = done()
        if value:
            return value
        assert time.monotonic() < until, f"{what} did not come true within {seconds} s"
        time.sleep(every)  # NOLINT(sally-sleep): between two looks at another process


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _echo(listener):
    def serve(c):
        try:
            while data := c.recv(65536):
                c.sendall(data)
        except OSError:
            pass
        c.close()

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


@contextmanager
def echo_server():
    """Port of an echo server on loopback, in a process of its own: what a test measures is not its own interpreter's lock."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = get_context("fork").Process(target=_echo, args=(listener,), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


class Failed(Exception):
    def __init__(self, run):
        super().__init__(f"{run.args}: exit {run.returncode}: {run.stderr}")
        self.exit = run.returncode
        try:
            self.out = json.loads(run.stdout)  # `status` says what is true and fails as well
        except ValueError:
            self.out = None
        try:
            self.error = json.loads(run.stderr.strip().splitlines()[-1])["error"]
        except (ValueError, KeyError, IndexError):
            self.error = {}


def sally(*args, timeout=60, text_input=None, env=None):
    """`sally -o json ARGS`; the decoded output, or Failed."""
    run = subprocess.run([SALLY, "-o", "json", *map(str, args)], capture_output=True, text=True, timeout=timeout, input=text_input, check=False, env={**os.environ, **(env or {})})
    if run.returncode != 0:
        raise Failed(run)
    out = json.loads(run.stdout) if run.stdout.strip() else None
    return out


def pids_of(folder):
    """Process ids of daemons whose command line names the folder, by program name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(folder) == a or a.startswith(str(folder) + "/") for a in argv):
            found.setdefault(Path(argv[0]).name, []).append(int(entry.name))
    return found


class Admin:
    """The fleet API on one connection that stays open, as the admin of a network."""

    def __init__(self, net):
        identity = json.loads((net.context / "admin.json").read_text())
        files = {}
        for name in ("key", "cert", "ca"):
            files[name] = net.root / f"harness-admin.{name}"
            files[name].touch(mode=0o600)
            files[name].write_text(identity["id"][name].removeprefix("pem:"))
        context = ssl.create_default_context(cafile=files["ca"])
        context.load_cert_chain(files["cert"], files["key"])
        self.connection = http.client.HTTPSConnection("127.0.0.1", net.port, context=context)

    def call(self, method, path, body=None, status=200):
        self.connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == status, text
        return json.loads(text)

    def create(self, name):
        return self.call("POST", "/fleet/v1/devices", {"name": name, "tags": ["made"]}, 201)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


class Router:
    """One more router of a network, enrolled by its token, in a folder of its own."""

    def __init__(self, net, name, options=()):
        self.net, self.name, self.dir, self.options = net, name, net.root / f"router-{name}", options
        self.port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"
        self.process = None
        with Admin(net) as admin:
            token = admin.call("POST", "/fleet/v1/routers", {"name": name, "addresses": [self.address]}, 201)["token"]
            self.dir.mkdir(mode=0o700)
            key = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], capture_output=True, text=True, check=True).stdout
            csr = subprocess.run(["openssl", "req", "-new", "-key", "/dev/stdin", "-subj", "/CN=router"], input=key, capture_output=True, text=True, check=True).stdout
            data = admin.call("POST", "/edge/client/v1/enroll/ott", {"token": token, "clientCsr": csr})["data"]
        url = data["sally"]["controller"]
        self.identity = self.dir / "identity.json"
        self.identity.touch(mode=0o600)
        self.identity.write_text(json.dumps({"ztAPI": url, "ztAPIs": [url], "id": {"key": key, "cert": data["cert"], "ca": data["ca"]}, "sally": data["sally"]}))
        self.id = data["sally"]["id"]
        self.start()

    def start(self):
        with (self.dir / "log").open("a") as log:
            self.process = subprocess.Popen([str(BIN / "sally-router"), "--dir", str(self.dir), "--listen", self.address, *self.options], stdout=subprocess.DEVNULL, stderr=log)
        wait_for(lambda: self.name in self.net.routers_online(), what=f"router {self.name} on line")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)
            self.process = None

    def log(self):
        return (self.dir / "log").read_text()


class Device:
    def __init__(self, net, name, tags, run, key="file", env=None):
        self.net, self.name, self.dir = net, name, net.dir / f"dev-{name}"
        self.env = env or {}
        token = net.sally("device", "add", name, *[x for t in tags for x in ("--tag", t)])[0]
        self.id, self.token = token["id"], token["token"]
        sally("join", self.token, "--dir", self.dir, "--no-run", "--key", key, env=self.env)
        self.identity = self.dir / "identity.json"
        self.process = None
        if run:
            self.start()

    def start(self):
        self.process = subprocess.Popen([SALLY, "supervise", "--dir", str(self.dir)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={**os.environ, **self.env})
        wait_for(lambda: self.status().get("online"), what=f"{self.name} on line")

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)
            self.process = None

    def status(self):
        try:
            return sally("status", "--dir", self.dir)[0].get("agent", {})
        except Failed as e:
            return e.out[0].get("agent", {}) if e.out else {}

    def forward(self, service):
        """Local port that leads to the service."""
        wait_for(lambda: self.sees(service), what=f"{self.name} sees {service}")
        listen = sally("forward", service, free_ports(1)[0], "--dir", self.dir)[0]["listen"]
        return int(listen.rsplit(":", 1)[1])

    def hosts(self, service):
        return any(h["service"] == service and h["bound"] for h in self.status().get("hosts", []))

    def sees(self, service):
        return any(s["name"] == service for s in self.status().get("services", []))

    def popen_connect(self, service):
        return subprocess.Popen([SALLY, "connect", service, "--dir", str(self.dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def log(self):
        return (self.dir / "agent.log").read_text()


class Net:
    def __init__(self, listen="127.0.0.1", router_options="", options=(), controller_options="", root=None):
        self.root = root or Path(tempfile.mkdtemp(prefix="sally-it-"))
        self.dir = self.root
        self.context = self.root / "net"
        self.devices = []
        self.routers = []
        self.port, self.router_port = free_ports(2)
        sally("up", "--dir", self.context, "--name", "127.0.0.1", "--listen", listen, "--port", self.port, "--router-port", self.router_port, "--detach", *options,
              env={"SALLY_ROUTER_OPTIONS": router_options, "SALLY_CONTROLLER_OPTIONS": controller_options})

    def sally(self, *args, **kwargs):
        return sally("--context", self.context, *args, **kwargs)

    def device(self, name, tags=(), run=True, **kwargs):
        device = Device(self, name, tags, run, **kwargs)
        self.devices.append(device)
        return device

    def router(self, name, options=()):
        router = Router(self, name, options)
        self.routers.append(router)
        return router

    def routers_online(self):
        try:
            return [r["name"] for r in self.sally("router", "list") if r["online"]]
        except Failed as e:
            if e.exit == 6:  # no controller at this moment
                return []
            raise

    def expose(self, port, name, host, allow):
        self.sally("expose", f"127.0.0.1:{port}", "--as", name, "--host", host.name, "--allow", allow)
        wait_for(lambda: host.hosts(name), what=f"{name} hosted")

    def audit(self):
        return self.sally("audit", "list", "--limit", 1000)

    def log(self, program):
        return (self.context / f"{program}.log").read_text()

    def pid(self, program):
        return pids_of(self.context)[program][0]

    def close(self):
        for stopping in [*self.devices, *self.routers]:
            stopping.stop()
        try:
            sally("down", "--dir", self.context)
        except Failed:
            pass
        left = pids_of(self.root)
        for pids in left.values():
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"still running: {left}"


def fields(line):
    """Fields of a log line in text form."""
    return {k: v.strip('"') for k, v in re.findall(r'(\w+)=("[^"]*"|\S+)', line)}
