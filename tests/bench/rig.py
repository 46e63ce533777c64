# SPDX-License-Identifier: Apache-2.0
"""What runs during make bench: the relays beside us, a real network, the load generator; and the arithmetic of figures."""
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import harness

BIN = harness.BIN
MAX_FOREIGN = 0.15  # of all cores; beyond it a run is dropped while enough are left
KEEP = 3
# The generator is one device where the world would have thousands.
ROUTER_OPTIONS = "--device-lanes 100000 --device-dials 100000 --service-dials 100000"
SOURCES = 64  # addresses of the generator: the router limits connections per source

HAPROXY = """
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-options ssl-min-ver TLSv1.3 no-tls-tickets
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen relay
  bind 127.0.0.1:{listen} ssl crt {dir}/haproxy.pem ca-file {dir}/ca.pem verify required
  server end 127.0.0.1:{target} ssl crt {dir}/haproxy.pem ca-file {dir}/ca.pem verify required
"""


def cpu_seconds(pid):
    """CPU time of a process with all its threads, in nanosecond resolution."""
    return time.clock_gettime((~pid << 3) | 2)


def memory_kb(pid, key="VmRSS"):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


class Rival:
    """A relay beside us: listens on `port`, connects to `target`."""

    def __init__(self, rig, name):
        self.name = name
        self.port, self.target = harness.free_ports(2)
        if name == "haproxy":
            config = rig.dir / "haproxy.cfg"
            config.write_text(HAPROXY.format(listen=self.port, target=self.target, dir=rig.dir))
            command = ["haproxy", "-db", "-f", str(config)]
        else:
            command = [str(BIN / "bare_relay"), str(self.port), str(self.target), str(rig.dir)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        harness.wait_for(self.listens, what=f"{name} listening")

    def listens(self):
        assert self.process.poll() is None, f"{self.name} ended"
        return any(re.search(f":{self.port:04X} 00000000:0000 0A", line) for line in Path("/proc/net/tcp").read_text().splitlines())

    @property
    def pid(self):
        return self.process.pid

    def flow(self, rig, *args, core=None):
        return rig.load("flow", "--via", "tls", "--dir", rig.dir, "--connect", self.port, "--listen", self.target, "--watch", self.pid, *args, core=core)

    def close(self):
        self.process.terminate()
        self.process.wait(10)


class Rig:
    def __init__(self, runs, profile=""):
        self.runs = runs
        self.profile = profile
        self.results = []
        self.dir = Path(tempfile.mkdtemp(prefix="sally-bench-"))
        self.rivals = {}
        self.net = None
        self.devices = {}
        self.services = set()
        self.sources = ",".join(f"10.77.0.{i + 1}" for i in range(SOURCES))
        self.congestion = self.prepare_network()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (200_000, 200_000))
        except ValueError:  # without the right to go above: as far as we may
            resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self.load("pki", "--dir", self.dir)

    @staticmethod
    def prepare_network():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for i in range(SOURCES):
            subprocess.run(["ip", "addr", "add", f"10.77.0.{i + 1}/32", "dev", "lo"], check=True)
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65000")
        setting = Path("/proc/sys/net/ipv4/tcp_congestion_control")
        for name in ("cubic", "reno"):  # not the machine's default: BBR paces
            try:
                setting.write_text(name)
                break
            except OSError:
                continue
        return setting.read_text().strip()

    # ---- processes

    def rival(self, name):
        if name not in self.rivals:
            self.rivals[name] = Rival(self, name)
        return self.rivals[name]

    def network(self):
        if self.net is None:
            self.net = harness.Net(listen="0.0.0.0", router_options=ROUTER_OPTIONS)
        return self.net

    @contextlib.contextmanager
    def fresh_network(self):
        """Another network, for what has to be measured from its start."""
        net = harness.Net(listen="0.0.0.0", router_options=ROUTER_OPTIONS)
        try:
            yield net
        finally:
            net.close()

    def device(self, name, tags=(), run=False):
        if name not in self.devices:
            self.devices[name] = self.network().device(name, tags, run=run)
        return self.devices[name]

    def service(self):
        """A service of our own generator: hosted by #host, dialed by #dial."""
        if "flow" not in self.services:
            self.network().sally("service", "add", "flow", "--host", "#host", "--allow", "#dial")
            self.services.add("flow")
        return "flow"

    def router_pid(self):
        return self.network().pid("sally-router")

    def controller_pid(self):
        return self.network().pid("sally-controller")

    def load(self, run, *args, core=None):
        """One run of the generator; its JSON. A run that breaks is tried once more."""
        command = [str(BIN / "bench_load"), run, *map(str, args)]
        with self.profiled(run, args) as prefix:
            return self.run_load([*prefix, *command], core)

    @contextlib.contextmanager
    def profiled(self, run, args):
        """With --profile: perf over the watched processes and over the generator; yields what stands before its command."""
        if not self.profile or "--watch" not in args:
            yield []
            return
        folder = Path(self.profile)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*-load.data")))
        perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g"]
        records = {"load": folder / f"{number}-{run}-load.data"}
        watchers = []
        for pid in str(args[args.index("--watch") + 1]).split(","):
            program = Path(f"/proc/{pid}/comm").read_text().strip()
            records[f"{program}-{pid}"] = data = folder / f"{number}-{run}-{program}-{pid}.data"
            watchers.append(subprocess.Popen([*perf, "-p", pid, "-o", str(data)], stderr=subprocess.DEVNULL))
        yield [*perf, "-o", str(records["load"]), "--"]
        for watcher in watchers:
            watcher.send_signal(signal.SIGINT)
            watcher.wait(30)
        for data in records.values():
            with data.with_suffix(".txt").open("w") as out:
                subprocess.run(["perf", "report", "--stdio", "-g", "none", "--no-children", "--percent-limit", "0.7", "-i", str(data)], stdout=out, stderr=subprocess.DEVNULL, check=False)

    def run_load(self, command, core):
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
        run = lambda: subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        done = run()
        if done.returncode != 0:
            done = run()  # once more: a busy machine
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)[-400:]}: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def router_flow(self, *args, core=None):
        """Circuits from one device to another through the router."""
        service = self.service()
        host, dialer = self.device("host", ["host"]), self.device("dialer", ["dial"])
        return self.load("flow", "--via", "sdk", "--service", service, "--host", host.identity, "--dialer", dialer.identity, "--watch", self.router_pid(), *args, core=core)

    def pin(self, pid, core):
        """Every thread of a process on one core; None: on all again."""
        cores = set(range(os.cpu_count())) if core is None else {core}
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)

    # ---- figures

    def alternate(self, candidates):
        """Runs the candidates in turn; per candidate the runs that count."""
        seen = {name: [] for name in candidates}
        for _ in range(self.runs):
            for name, run in candidates.items():
                seen[name].append(run())
        return {name: quiet(results) for name, results in seen.items()}

    def add(self, name, values, unit, goal=None, ratio_to=None, against=None, goal_on="value", note="", digits=6):
        """One figure from the values of its runs. `against`: the values of what it is compared with."""
        values = [float(v) for v in values]
        value = median(values)
        ratio = value / median(against) if against else None
        spread = (max(values) - min(values)) / value if value and len(values) > 1 else 0.0
        met = None
        if goal:
            sign, limit = goal.split()
            judged = ratio if goal_on == "ratio" else value
            met = {"<=": judged <= float(limit), "<": judged < float(limit), ">=": judged >= float(limit)}[sign]
        text = None if goal is None else f"{'ratio ' if goal_on == 'ratio' else ''}{goal}"
        self.results.append({"name": name, "value": float(f"{value:.{digits}g}"), "unit": unit, "ratio_to": ratio_to, "ratio": ratio and float(f"{ratio:.4g}"),
                             "n": len(values), "spread": float(f"{spread:.3g}"), "goal": text, "met": met, "note": note})

    def header(self):
        speed = subprocess.run(["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "16384", "-evp", "aes-128-gcm"], capture_output=True, text=True, check=False)
        rate = re.search(r"AES-128-GCM\s+([\d.]+)k", speed.stdout)
        return {
            "openssl": subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout.split()[1],
            "haproxy": subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=False).stdout.split()[2],
            "kernel": platform.release(),
            "cores": os.cpu_count(),
            "congestion_control": self.congestion,
            "aes_128_gcm_gb_per_s": round(float(rate.group(1)) / 1e6, 2) if rate else 0.0,
            "memcpy_gb_per_s": round(self.load("yardstick")["memcpy_gb_per_s"], 2),
            "version": subprocess.run([str(BIN / "sally-router"), "--version"], capture_output=True, text=True, check=False).stdout.strip(),
        }

    def close(self):
        for rival in self.rivals.values():
            rival.close()
        if self.net is not None:
            self.net.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def quiet(results):
    """Without the runs in which others took more than MAX_FOREIGN of the machine; the quietest KEEP stay in any case."""
    kept = [r for r in results if r["foreign"] <= MAX_FOREIGN]
    if len(kept) >= KEEP:
        return kept
    return sorted(results, key=lambda r: r["foreign"])[:KEEP]


def loud(*groups):
    """A remark when runs count although the machine was busy."""
    worst = max((r["foreign"] for g in groups for r in g), default=0)
    return f"others took up to {100 * worst:.0f} % of the machine" if worst > MAX_FOREIGN else ""
