# SPDX-License-Identifier: Apache-2.0
"""Processes that die, disks that are full or read-only, controllers that are slow: the real programs."""
import os
import random
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import BIN, Failed, Net, echo_server, free_ports, pids_of, sally, wait_for
from test_resilience import kill, ping, works

SEED = int(os.environ.get("SALLY_SEED", "4"))


@pytest.fixture(scope="module")
def echo():
    with echo_server() as port:
        yield port


@contextmanager
def stopped(*pids):
    """Processes that do not answer, as a machine that swaps or a link that hangs."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def supervisor(net):
    return next(p for p in pids_of(net.context)["sally"] if b"\0up\0" in Path(f"/proc/{p}/cmdline").read_bytes())


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def together(net):
    wait_for(lambda: net.sally("router", "list")[0]["online"], seconds=20, what="router and controller together")


# ---- real kills


class Daemon:
    """A program that nobody starts again but the test."""
    def __init__(self, program, folder, port):
        self.args = [BIN / program, "--dir", folder, "--listen", f"127.0.0.1:{port}"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline().startswith("ready"), "what was killed starts again"

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


def test_twenty_kills_of_the_controller_lose_nothing_acknowledged():
    """Clients work on without pause while the controller is killed at moments of chance; what was answered is there."""
    net = Net()
    sally("down", "--dir", net.context)
    chance = random.Random(SEED)
    added, removed, joined, refused, over = set(), set(), set(), [], threading.Event()
    versions = [0]

    def client(name):
        n = 0
        while not over.is_set():
            n += 1
            device = f"{name}-{n}"
            try:
                token = net.sally("device", "add", device, "--tag", "t")[0]["token"]
                added.add(device)
                if n % 3 == 0:
                    sally("join", token, "--dir", net.dir / device, "--no-run")
                    joined.add(device)
                if n % 4 == 0:
                    net.sally("device", "rm", device, "--yes")
                    removed.add(device)
                versions.append(net.sally("status")[0]["network"]["version"])
            except Failed as e:
                refused.append((device, e.exit, e.error))

    controller = Daemon("sally-controller", net.context / "controller", net.port)
    router = Daemon("sally-router", net.context / "router", net.router_port)
    clients = [threading.Thread(target=client, args=(f"c{i}",)) for i in range(2)]
    for c in clients:
        c.start()
    try:
        for _ in range(20):
            time.sleep(0.05 + chance.random() * 0.4)  # NOLINT(sally-sleep): the moment is the test's input
            controller.kill()
            controller.start()
    finally:
        over.set()
        for c in clients:
            c.join()
    try:
        there = {d["name"]: d for d in net.sally("device", "list")}
        unsure = {device for device, _, _ in refused}  # no answer: done or not
        assert len(added) > 20 and joined and removed, (len(added), len(joined), len(removed))
        assert added - removed - unsure <= there.keys()
        assert not removed & there.keys()
        assert all(there[device]["enrolled"] for device in joined - removed - unsure)
        assert net.sally("audit", "verify")[0]["ok"] is True
        assert all(a <= net.sally("status")[0]["network"]["version"] for a in versions)
        rows = [(r["action"], r["subject"]) for r in net.audit() if r["action"] in ("device.add", "device.remove")]
        assert len(rows) == len(set(rows)), "done twice"
        # Whoever got no answer is told that nobody was there.
        assert {code for _, code, _ in refused} <= {6}, [r for r in refused if r[1] != 6]
    finally:
        controller.kill()
        router.kill()
        net.close()


def test_router_and_agents_killed_while_they_write_their_files(net, echo):
    server, pump = net.device("server"), net.device("pump", ["sensors"])
    net.expose(echo, "plant", server, "#sensors")
    port = pump.forward("plant")
    chance = random.Random(SEED)
    wait_for(lambda: works(port), what="flow before")
    for n in range(5):
        net.sally("device", "tag", "pump", "sensors", f"t{n}")  # a new state for the router to keep
        kill(pids_of(net.context)["sally-router"][0])
        listen = sally("forward", "plant", free_ports(1)[0], "--dir", pump.dir)[0]["listen"]
        kill(pids_of(pump.dir)["sally-agent"][0])
        wait_for(lambda: works(port), seconds=8, what="flow again")
        wait_for(lambda: works(int(listen.rsplit(":", 1)[1])), what="the forward that was acknowledged")
        time.sleep(chance.random() * 0.05)  # NOLINT(sally-sleep): another moment each time
    assert "state_refused" not in net.log("router")
    left = [f.name for d in (net.context / "router", pump.dir) for f in d.iterdir() if ".new-" in f.name]
    assert len(left) <= 10


# ---- the router under load


def test_router_killed_under_64_flows(net, echo):
    hosts = {d.name: d for d in net.devices}
    server, pump = hosts["server"], hosts["pump"]
    port = pump.forward("plant")
    wait_for(lambda: works(port), what="flow before")
    over = threading.Event()
    last = [0.0] * 64
    starts = [0] * 64

    def flow(i):
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as s:
                    s.settimeout(5)
                    starts[i] += 1
                    while not over.is_set() and ping(s):
                        last[i] = time.monotonic()
                        time.sleep(0.01)  # NOLINT(sally-sleep): 64 paced flows
            except OSError:
                pass
            time.sleep(0.05)  # NOLINT(sally-sleep): as a program that comes back politely

    threads = [threading.Thread(target=flow, args=(i,), daemon=True) for i in range(64)]
    for t in threads:
        t.start()
    try:
        wait_for(lambda: all(last), seconds=20, what="64 flows")
        agents = [pids_of(d.dir)["sally-agent"][0] for d in (server, pump)]
        boss = supervisor(net)
        with stopped(boss):  # so that nobody starts a new router
            kill(pids_of(net.context)["sally-router"][0])
            # In its place somebody who counts who comes.
            tries = []
            with socket.create_server(("127.0.0.1", net.router_port), reuse_port=True) as count:
                count.settimeout(0.1)
                before, until = [cpu_seconds(a) for a in agents], time.monotonic() + 3
                while time.monotonic() < until:
                    try:
                        count.accept()[0].close()
                        tries.append(time.monotonic())
                    except TimeoutError:
                        pass
                spent = [cpu_seconds(a) - b for a, b in zip(agents, before)]
            assert 2 <= len(tries) <= 24, f"{len(tries)} attempts of two agents in 3 s"
            assert sum(spent) < 1.0, f"agents spent {spent} s of CPU in 3 s without a router"
        back = time.monotonic()
        wait_for(lambda: all(t > back for t in last), seconds=8, what="64 flows again")
        assert sum(starts) < 64 * 200
    finally:
        over.set()
        for t in threads:
            t.join(10)
    assert server.hosts("plant")


# ---- slow and dead controllers


@contextmanager
def dripping_server():
    """Somebody who sends a TLS handshake, five bytes a second."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            conns = []
            listener.settimeout(0.2)
            record = b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc\x03\x03"  # as a ServerHello begins
            while not over.is_set():
                try:
                    conns.append([listener.accept()[0], 0])
                except TimeoutError:
                    pass
                for c in conns:
                    try:
                        c[0].send((record + b"\x00" * 4096)[c[1]:c[1] + 1])
                        c[1] += 1
                    except OSError:
                        pass
        t = threading.Thread(target=serve)
        t.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            t.join()


def test_a_controller_that_does_not_answer_stops_nobody_but_its_admin(net, echo):
    hosts = {d.name: d for d in net.devices}
    pump = hosts["pump"]
    port = pump.forward("plant")
    slow_dir = net.dir / "slow"
    slow_dir.mkdir()
    (slow_dir / "admin.json").write_bytes((net.context / "admin.json").read_bytes())
    answers = {}

    def ask(name, context):
        start = time.monotonic()
        try:
            sally("--context", context, "device", "list")
            answers[name] = (0, "", 0)
        except Failed as e:
            answers[name] = (e.exit, e.error.get("message", ""), time.monotonic() - start)

    with dripping_server() as drip, stopped(pids_of(net.context)["sally-controller"][0]), \
            socket.create_connection(("127.0.0.1", port), timeout=5) as flow:
        (slow_dir / "up.json").write_text((net.context / "up.json").read_text().replace(str(net.port), str(drip)))
        asking = [threading.Thread(target=ask, args=a) for a in (("stopped", net.context), ("dripping", slow_dir))]
        for t in asking:
            t.start()
        assert ping(flow)
        kill(pids_of(net.context)["sally-router"][0])  # its state is on its own disk
        wait_for(lambda: works(port), seconds=8, what="flows through a restarted router")
        kill(pids_of(pump.dir)["sally-agent"][0])
        wait_for(lambda: works(port), seconds=8, what="flows of a restarted agent")
        for t in asking:
            t.join(40)
    for name, (code, message, took) in answers.items():
        assert code == 6 and "does not answer" in message, (name, code, message)
        assert took < 20, f"{name}: {took:.0f} s"
    assert len(answers) == 2
    together(net)


# ---- full and read-only disks


@contextmanager
def small_disk(mebibytes):
    folder = Path(subprocess.run(["mktemp", "-d", "/tmp/sally-small-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip())
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "sally-small", str(folder)], capture_output=True, text=True, check=False)
    assert mount.returncode == 0, mount.stderr
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(folder):
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as f:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    f.write(b"\0" * size)
            except OSError:
                pass
    return filler


class NetOn(Net):
    """A network whose folder lies on a disk of ours."""
    def __init__(self, folder):
        root = folder / "it"
        root.mkdir()
        super().__init__(root=root)


def test_a_full_disk_refuses_clearly_and_is_forgotten_when_there_is_space(echo):
    with small_disk(64) as disk:
        net = NetOn(disk)
        try:
            server, pump = net.device("server"), net.device("pump", ["sensors"])
            net.expose(echo, "plant", server, "#sensors")
            port = pump.forward("plant")
            wait_for(lambda: works(port), what="flow before")
            token = net.sally("device", "add", "late")[0]["token"]
            outside = Path(f"/tmp/sally-late-{os.getpid()}")
            with socket.create_connection(("127.0.0.1", port), timeout=5) as flow:
                flow.settimeout(5)
                assert ping(flow)
                filler = fill(disk)
                refused = 0
                for n in range(200):  # the log file of the store has some room of its own
                    try:
                        net.sally("device", "add", f"n-{n}")
                    except Failed as e:
                        assert (e.exit, e.error["code"]) == (6, "store.full"), e
                        assert "space" in e.error["message"] and e.error["fix"]
                        refused += 1
                        if refused == 2:
                            break
                assert refused == 2
                with pytest.raises(Failed) as e:
                    sally("join", token, "--dir", net.dir / "late", "--no-run")
                assert e.value.error["code"] == "fs.full" and "not used" in e.value.error["message"], e.value.error
                wanted = free_ports(1)[0]
                with pytest.raises(Failed) as e:
                    sally("forward", "plant", wanted, "--dir", pump.dir)
                assert e.value.error["code"] == "fs.full", e.value.error
                assert not works(wanted), "a forward that was refused is not there"
                assert ping(flow) and works(port)
                assert net.sally("device", "list") and net.sally("audit", "verify")[0]["ok"] is True
                # Even restarts go through, or wait for space without anybody's help.
                for program in ("sally-controller", "sally-router"):
                    kill(pids_of(net.context)[program][0])
                wait_for(lambda: works(port), seconds=8, what="flows through a router that starts on a full disk")
                filler.unlink()
            wait_for(lambda: _adds(net, "after"), seconds=20, what="the controller writes again")
            sally("join", token, "--dir", outside, "--no-run")
            assert sally("forward", "plant", wanted, "--dir", pump.dir)
            wait_for(lambda: works(wanted), what="the forward now")
            together(net)
            assert net.sally("audit", "verify")[0]["ok"] is True
            state = net.context / "router/state"
            before = state.stat().st_mtime_ns
            net.sally("device", "tag", "pump", "sensors", "x")
            wait_for(lambda: state.stat().st_mtime_ns > before, what="the router keeps its state again")
            subprocess.run(["rm", "-rf", str(outside)], check=True)
        finally:
            net.close()


def _adds(net, name):
    try:
        return net.sally("device", "add", name)
    except Failed as e:
        return e.error.get("code") == "api.taken"


def test_read_only_disk(echo):
    """A router and its devices need no disk to go on; a controller says what is wrong."""
    with small_disk(64) as disk:
        net = NetOn(disk)
        server, pump = net.device("server"), net.device("pump", ["sensors"])
        net.expose(echo, "plant", server, "#sensors")
        port = pump.forward("plant")
        wait_for(lambda: works(port), what="flow before")
        together(net)
        sally("down", "--dir", net.context)
        router = None
        copy = Path(subprocess.run(["mktemp", "-d", "/tmp/sally-ro-XXXXXX"], capture_output=True, text=True, check=True).stdout.strip())
        try:
            subprocess.run(["mount", "--bind", str(net.context), str(copy)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(copy)], check=True)
            refused = subprocess.run([BIN / "sally-controller", "--dir", copy / "controller", "--listen", "127.0.0.1:0"],
                                     capture_output=True, text=True, timeout=20, check=False)
            assert refused.returncode == 1, refused
            assert "store.disk_read_only" in refused.stderr and str(copy) in refused.stderr and "mount" in refused.stderr, refused.stderr
            router = Daemon("sally-router", copy / "router", net.router_port)
            wait_for(lambda: works(port), seconds=15, what="flows through a router on a read-only disk, without a controller")
            with pytest.raises(Failed) as e:
                sally("join", "x.y.z", "--dir", copy / "new", "--no-run")
            assert e.value.error["code"], e.value.error
        finally:
            if router:
                router.kill()
            subprocess.run(["umount", "-l", str(copy)], check=True)
            copy.rmdir()
            sally("up", "--dir", net.context, "--detach")
            wait_for(lambda: works(port), what="all of it again")
            net.close()
