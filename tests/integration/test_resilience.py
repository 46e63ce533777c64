# SPDX-License-Identifier: Apache-2.0
"""What dies comes back by itself; what needs nobody goes on without."""
import os
import signal
import socket
import subprocess
import time

import pytest
from harness import SALLY, Failed, echo_server, pids_of, sally, wait_for


@pytest.fixture(scope="module")
def echo(net):
    with echo_server() as target:
        server, pump = net.device("server"), net.device("pump", ["sensors"])
        net.expose(target, "plant", server, "#sensors")
        yield server, pump, pump.forward("plant")


def ping(s):
    s.sendall(b"ping")
    got = b""
    while len(got) < 4:
        piece = s.recv(4 - len(got))
        if not piece:
            return False
        got += piece
    return got == b"ping"


def works(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
            s.settimeout(2)
            return ping(s)
    except OSError:
        return False


def kill(pid):
    os.kill(pid, signal.SIGKILL)

    def gone():
        try:
            with open(f"/proc/{pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:  # it may vanish between open and read, too
            return True

    wait_for(gone, what="process gone")


@pytest.mark.parametrize("victim", ["controller", "router", "hosting agent", "dialing agent"])
def test_killed_and_back_within_five_seconds(net, echo, victim):
    server, pump, port = echo
    wait_for(lambda: works(port), what="flow before")
    folder, program = {"controller": (net.context, "sally-controller"), "router": (net.context, "sally-router"),
                       "hosting agent": (server.dir, "sally-agent"), "dialing agent": (pump.dir, "sally-agent")}[victim]
    pid = pids_of(folder)[program][0]
    kill(pid)
    start = time.monotonic()
    wait_for(lambda: pids_of(folder).get(program, [pid]) != [pid], what="a new process")
    wait_for(lambda: works(port), seconds=5 - (time.monotonic() - start), what=f"flow after the {victim} was killed")
    wait_for(lambda: net.sally("router", "list")[0]["online"], what="router and controller together again")


def test_controller_gone_flows_and_new_dials_go_on(net, echo):
    server, pump, port = echo
    pid = pids_of(net.context)["sally-controller"][0]
    with socket.create_connection(("127.0.0.1", port)) as flow:
        flow.settimeout(5)
        assert ping(flow)
        os.kill(pid, signal.SIGSTOP)
        try:
            # Long enough for the router to notice that its controller is silent.
            wait_for(lambda: "controller_down" in net.log("router").rsplit("controller_up", 1)[1], seconds=20, what="the router notices")
            assert ping(flow)
            assert works(port)
            # A device that starts now has everything it needs from the router.
            kill(pids_of(pump.dir)["sally-agent"][0])
            wait_for(lambda: works(port), seconds=10, what="a restarted agent without the controller")
        finally:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: net.sally("router", "list")[0]["online"], seconds=20, what="together again")


def test_the_supervisor_takes_its_children_along_and_up_works_again(net, echo):
    _, _, port = echo
    with pytest.raises(Failed) as e:
        sally("up", "--dir", net.context, "--detach")
    assert e.value.exit == 5 and "already" in e.value.error["message"]
    supervisor = next(p for p in pids_of(net.context)["sally"] if b"\0up\0" in open(f"/proc/{p}/cmdline", "rb").read())
    kill(supervisor)
    wait_for(lambda: not any(p in pids_of(net.context) for p in ("sally-controller", "sally-router")), what="no orphans")
    before = net.port
    sally("up", "--dir", net.context, "--detach")
    assert net.sally("status")[0]["network"]["url"].endswith(str(before))
    wait_for(lambda: works(port), what="the same network again")
    assert net.sally("audit", "verify")[0]["ok"] is True


def test_damaged_files_are_refused_loudly(net, echo):
    _, _, port = echo
    sally("down", "--dir", net.context)
    with pytest.raises(Failed) as e:
        sally("down", "--dir", net.context)
    assert e.value.exit == 4
    state = net.context / "router/state"
    state.write_bytes(state.read_bytes()[:-100] + os.urandom(100))
    sally("up", "--dir", net.context, "--detach")
    assert "router.state_refused" in net.log("router")
    wait_for(lambda: works(port), what="state fetched again")
    sally("down", "--dir", net.context)
    db = net.context / "controller/controller.db"
    good = db.read_bytes()
    for bad in (good[: len(good) // 2], os.urandom(len(good)), b""):  # an empty file is a valid, empty database
        db.write_bytes(bad)
        run = subprocess.run([SALLY.replace("bin/sally", "bin/sally-controller"), "--dir", str(net.context / "controller"), "--listen", "127.0.0.1:0"],
                             capture_output=True, text=True, timeout=20, check=False)
        assert run.returncode == 1 and "ready" not in run.stdout and ("store." in run.stderr or "controller.no_network" in run.stderr), run.stderr
    db.write_bytes(good)
    sally("up", "--dir", net.context, "--detach")
    wait_for(lambda: works(port), what="the network from its good file")


def test_up_where_nothing_can_be_written():
    with pytest.raises(Failed) as e:
        sally("up", "--dir", "/proc/nowhere", "--detach")
    assert e.value.error["code"].startswith("fs.")
