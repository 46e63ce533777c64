# SPDX-License-Identifier: Apache-2.0
"""Grants, what they open, and how fast their end is felt."""
import socket
import subprocess
import threading
import time

import pytest
from harness import Failed, echo_server, sally, wait_for


@pytest.fixture(scope="module")
def echo():
    with echo_server() as port:
        yield port


def open_flow(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(10)
    s.sendall(b"ping")
    assert s.recv(4) == b"ping"
    return s


def seconds_until_cut(s, action):
    """Runs `action` while the flow lives; seconds from its return to the end of the flow (0 if that came first)."""
    cut = []

    def watch():
        try:
            while s.recv(100):
                pass
        except OSError:
            pass
        cut.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    action()
    done = time.monotonic()
    watcher.join(10)
    assert cut, "the flow lives on"
    return max(0.0, cut[0] - done)


def test_grants_from_nothing_to_removed(net, echo):
    server = net.device("server")
    net.expose(echo, "plant", server, "#sensors")
    pump = net.device("pump", ["sensors"])
    other = net.device("other", ["guests"])

    # Without a grant it is not listed, and dialing answers as for a name that nobody has.
    assert pump.sees("plant") and not other.sees("plant")
    answers = []
    for name in ("plant", "no-such-service"):
        run = other.popen_connect(name)
        _, err = run.communicate(timeout=20)
        answers.append((run.returncode, err))
    assert answers[0] == answers[1]
    assert answers[0][0] == 4
    wait_for(lambda: any(a["action"] == "router.dial_denied" or "dial_denied" in str(a) for a in net.audit()), what="audit row of the denied dial")

    # A grant makes it work at once; taking it back cuts the flow.
    net.sally("allow", "other", "plant")
    wait_for(lambda: other.sees("plant"), what="grant seen")
    flow = open_flow(other.forward("plant"))
    assert seconds_until_cut(flow, lambda: net.sally("deny", "other", "plant")) < 1.0
    wait_for(lambda: not other.sees("plant"), what="service gone from the list")

    # A removed device: its flow is cut, its lane is cut, and its certificate opens nothing any more.
    flow = open_flow(pump.forward("plant"))
    assert seconds_until_cut(flow, lambda: net.sally("device", "rm", "pump", "--yes")) < 1.0
    wait_for(lambda: not pump.status().get("online"), what="lane cut")
    run = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{net.router_port}", "-alpn", "sally-edge/1", "-tls1_3", "-ign_eof", *credentials(pump)],
                         input=b"", capture_output=True, timeout=20, check=False)
    assert b"alert number 42" in run.stderr + run.stdout, run.stderr
    before = net.log("router").count("router.revoked")
    wait_for(lambda: net.log("router").count("router.revoked") > before, seconds=20, what="the device tries and is refused with its reason in our log")
    assert not pump.status().get("online")


def credentials(device):
    import json
    identity = json.loads(device.identity.read_text())
    pem = device.dir / "test.pem"
    pem.write_text(identity["id"]["key"].removeprefix("pem:") + identity["id"]["cert"].removeprefix("pem:"))
    return ["-cert", str(pem), "-key", str(pem), "-cert_chain", str(pem)]


def test_two_grants_by_tag_and_name(net, echo):
    gate = net.device("gate", ["hall"])
    net.sally("allow", "#hall", "plant")
    wait_for(lambda: gate.sees("plant"))
    net.sally("allow", "gate", "plant")
    net.sally("deny", "#hall", "plant")
    s = open_flow(gate.forward("plant"))  # the grant by name still stands
    s.close()


def test_bad_requests_say_what_to_do(net):
    cases = [
        (("device", "add", "bad name"), 2),
        (("device", "add", "server"), 5),
        (("device", "show", "nobody"), 4),
        (("device", "rm", "nobody", "--yes"), 4),
        (("device", "rm", "server"), 2),  # nobody to ask
        (("allow", "#", "plant"), 2),
        (("allow", "#x", "nothing"), 4),
        (("service", "add", "x", "--host", "nobody"), 4),
        (("expose", "127.0.0.1", "--as", "y", "--host", "server"), 2),
        (("expose", "127.0.0.1:1", "--as", "plant", "--host", "server"), 5),
        (("no-such-command",), 2),
    ]
    for args, code in cases:
        with pytest.raises(Failed) as e:
            net.sally(*args)
        assert e.value.exit == code, (args, str(e.value))
        if args[0] != "no-such-command":
            assert e.value.error.get("code") and e.value.error.get("message"), args


def test_audit_chain_verifies(net):
    assert net.sally("audit", "verify")[0]["ok"] is True
    actions = {a["action"] for a in net.audit()}
    assert len(actions) > 3


def test_context_and_login(net, tmp_path):
    with pytest.raises(Failed) as e:
        sally("--context", tmp_path / "none", "device", "list")
    assert e.value.exit == 2 and "sally up" in e.value.error["fix"]
    token = net.sally("admin", "add", "alice")[0]["token"]
    sally("login", token, "--dir", tmp_path / "alice")
    assert any(d["name"] == "server" for d in sally("--context", tmp_path / "alice", "device", "list"))
    with pytest.raises(Failed) as e:
        sally("login", token, "--dir", tmp_path / "again")
    assert e.value.exit != 0
    # A device's certificate is no admin's.
    with pytest.raises(Failed) as e:
        sally("join", net.sally("admin", "add", "bob")[0]["token"], "--dir", tmp_path / "bob", "--no-run")
    assert e.value.exit == 2
