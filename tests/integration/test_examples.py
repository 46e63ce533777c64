# SPDX-License-Identifier: Apache-2.0
"""The example programs: a server without a listening socket, and its clients."""
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import EXAMPLES, wait_for


@pytest.fixture(scope="module")
def echo(net):
    net.device("server", ["servers"], run=False)
    me = net.device("me", ["people"], run=False)
    net.sally("service", "add", "echo", "--host", "#servers", "--allow", "#people")
    server = subprocess.Popen([EXAMPLES / "echo-server", net.devices[0].identity, "echo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(lambda: net.sally("service", "show", "echo")[0]["hosted_by"], what="echo hosted")
    yield server, me
    server.kill()
    server.wait(10)


def client(program, identity, service, data=b""):
    return subprocess.run([EXAMPLES / program, identity, service], input=data, capture_output=True, timeout=60, check=False)


def test_echo_in_cpp_and_in_c(echo):
    server, me = echo
    run = client("echo-client", me.identity, "echo", b"hello")
    assert run.stdout == b"hello" and run.returncode == 0
    assert b"connected to server, proven" in run.stderr
    assert server.stdout.readline().startswith(b"caller me ")
    run = client("echo-client-c", me.identity, "echo")
    assert run.stdout == b"hello from C\n" and run.returncode == 0


def test_the_server_has_no_listening_socket(echo):
    server, _ = echo
    out = subprocess.run(["ss", "-lntupH"], capture_output=True, text=True, check=True).stdout
    assert f"pid={server.pid}," not in out
    assert "LISTEN" in out or "UNCONN" in out, "ss shows nothing at all: this proves nothing"


def test_twenty_clients_at_once(echo):
    _, me = echo

    def one(_):
        data = os.urandom(5_000_000)
        return hashlib.sha256(client("echo-client", me.identity, "echo", data).stdout).digest() == hashlib.sha256(data).digest()

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(20)))


def test_nothing_written_is_lost_when_the_program_ends_at_once(net, echo, tmp_path):
    """`sally connect` with a service that ends first: all of a large input is there before the process is gone."""
    import hashlib as h
    import socket
    import threading
    listener = socket.create_server(("127.0.0.1", 0))
    got = h.sha256()
    done = threading.Event()

    def serve():
        while not done.is_set():
            c, _ = listener.accept()
            c.shutdown(socket.SHUT_WR)
            total = 0
            try:
                while data := c.recv(65536):
                    got.update(data)
                    total += len(data)
            except OSError:
                pass
            if total:
                done.set()

    threading.Thread(target=serve, daemon=True).start()
    sink = net.device("sink", [])
    net.expose(listener.getsockname()[1], "sink", sink, "#people")
    _, me = echo
    data = os.urandom(600_000)
    with subprocess.Popen([EXAMPLES / "sally", "connect", "sink", "--dir", me.dir], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        run.stdin.write(data)
        run.stdin.close()
        assert run.wait(20) == 0
    assert done.wait(10)
    assert got.digest() == h.sha256(data).digest()
    listener.close()


def test_what_goes_wrong_is_named(net, echo, tmp_path):
    _, me = echo
    run = client("echo-client", me.identity, "nothing")
    assert run.returncode == 1 and b"sally.no_service" in run.stderr
    run = client("echo-client", tmp_path / "none", "echo")
    assert run.returncode == 1 and b"none" in run.stderr
    (tmp_path / "bad").write_text("{}")
    run = client("echo-client", tmp_path / "bad", "echo")
    assert run.returncode == 1 and b"identity.bad_file" in run.stderr
    run = client("echo-client", net.context / "admin.json", "echo")
    assert run.returncode == 1 and b"role admin" in run.stderr
    net.sally("service", "add", "empty", "--host", "#servers", "--allow", "#people")
    run = client("echo-client", me.identity, "empty")
    assert run.returncode == 1 and b"sally.no_host" in run.stderr
