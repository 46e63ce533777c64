#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tour.py BIN [--device "COMMAND-PREFIX" BIN]: a whole network from the programs in BIN; exit 0 when all of it worked.

up, expose, device add, join, forward, and bytes through the circuit in both directions; then down. --device: the device's programs
come from another folder and are started by a prefix (an emulator). Needs nothing but Python: it also runs where the checkout does
not build.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def wait_for(done, what, seconds=30):
    until = time.monotonic() + seconds
    while not (value := done()):
        assert time.monotonic() < until, f"{what} did not come true within {seconds} s"
        time.sleep(0.05)  # NOLINT(sally-sleep): between two looks at another process
    return value


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def echo_server():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def echoes(port, size=300_000):
    sent, got = os.urandom(size), b""
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        s.settimeout(30)
        threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR)), daemon=True).start()
        while data := s.recv(65536):
            got += data
    assert got == sent, f"{len(got)} of {size} bytes came back"


class Side:
    """The programs of one folder, perhaps under an emulator."""

    def __init__(self, folder, prefix=()):
        self.folder, self.prefix = Path(folder).resolve(), list(prefix)
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}

    def command(self, program, *args):
        return [*self.prefix, str(self.folder / program), *map(str, args)]

    def sally(self, *args):
        run = subprocess.run(self.command("sally", "-o", "json", *args), capture_output=True, text=True, timeout=90, env=self.env, check=False)
        assert run.returncode == 0, f"sally {' '.join(map(str, args))}: exit {run.returncode}: {run.stderr}"
        return json.loads(run.stdout) if run.stdout.strip() else None

    def daemon(self, program, *args):
        return subprocess.Popen(self.command(program, *args), stdin=subprocess.DEVNULL, env=self.env)


def agent_status(side, folder):
    try:
        return side.sally("status", "--dir", folder)[0].get("agent", {})
    except AssertionError:  # not yet: it exits 6 while no router is reached
        return {}


def hosts(side, service, folder):
    return any(h["service"] == service and h["bound"] for h in agent_status(side, folder).get("hosts", []))


def forward(side, service, folder):
    wait_for(lambda: any(s["name"] == service for s in agent_status(side, folder).get("services", [])), f"{folder.name} sees {service}")
    return int(side.sally("forward", service, free_port(), "--dir", folder)[0]["listen"].rsplit(":", 1)[1])


def tour(network, device, root):
    net, pump = root / "net", root / "pump"
    for program in ("sally-controller", "sally-router", "sally-agent"):
        subprocess.run(network.command(program, "--version"), check=True, env=network.env, stdout=subprocess.DEVNULL)
    network.sally("up", "--dir", net, "--name", "127.0.0.1", "--listen", "127.0.0.1", "--port", free_port(), "--router-port", free_port(), "--detach")
    agent = None
    try:
        network.sally("--context", net, "expose", f"127.0.0.1:{echo_server()}", "--as", "of-the-server", "--allow", "#sensors")
        token = network.sally("--context", net, "device", "add", "pump-17", "--tag", "sensors")[0]["token"]
        device.sally("join", token, "--dir", pump, "--no-run")
        agent = device.daemon("sally-agent", "--dir", pump)
        wait_for(lambda: (pump / "agent.sock").exists(), "the device's agent")
        wait_for(lambda: hosts(network, "of-the-server", net / "agent"), "the server hosts")
        echoes(forward(device, "of-the-server", pump))
        print("device to server: echoed")
        other = next(d["name"] for d in network.sally("--context", net, "device", "list") if d["name"] != "pump-17")
        network.sally("--context", net, "expose", f"127.0.0.1:{echo_server()}", "--as", "of-the-device", "--host", "pump-17", "--allow", other)
        wait_for(lambda: hosts(device, "of-the-device", pump), "the device hosts")
        echoes(forward(network, "of-the-device", net / "agent"))
        print("server to device: echoed")
    finally:
        if agent:
            agent.terminate()
            agent.wait(20)
        network.sally("down", "--dir", net)
    assert agent.returncode == 0, f"the agent ended with {agent.returncode}"


def main():
    arguments = sys.argv[1:]
    network = Side(arguments[0])
    device = Side(arguments[3], arguments[2].split()) if arguments[1:2] == ["--device"] else network
    root = Path(tempfile.mkdtemp(prefix="sally-tour-"))
    try:
        tour(network, device, root)
    except BaseException:
        for log in sorted(root.rglob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("tour: ok")


if __name__ == "__main__":
    main()
