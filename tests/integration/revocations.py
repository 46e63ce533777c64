# SPDX-License-Identifier: Apache-2.0
"""Many devices with live flows on several routers, revoked one after the other: how long each flow outlived the call's answer."""
import json
import subprocess
import time

from harness import BENCH, Admin


class Sitting:
    """`count` devices, `flows` paced flows each, spread over all routers of the network; the service `sink` is hosted at each router."""

    def __init__(self, net, routers, count, flows, prefix="gone"):
        self.net, self.flows = net, flows
        if not any(s["name"] == "sink" for s in net.sally("service", "list")):
            net.sally("service", "add", "sink", "--host", "#sinks", "--allow", "#gone")
            net.device("sink-host", ["sinks"], run=False)
        host = next(d for d in net.devices if d.name == "sink-host")
        self.devices = [net.device(f"{prefix}-{i}", ["gone"], run=False) for i in range(count)]
        self.process = subprocess.Popen([str(BENCH / "bench_load"), "revoke", "--service", "sink", "--host", str(host.identity), "--routers", ",".join(routers),
                                         "--devices", ",".join(str(d.identity) for d in self.devices), "--flows", str(flows), "--limit", "120"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read())

    def revoke_all(self, pause=0.05):
        """Per device, in seconds after the call's answer: its last byte at a sink, and the end of its last flow there."""
        answered = {}
        with Admin(self.net) as admin:
            for device in self.devices:
                admin.call("POST", f"/fleet/v1/devices/{device.name}/revoke", {"reason": "key-compromise"})
                answered[device.id] = time.monotonic()  # the clock of the sink
                time.sleep(pause)  # NOLINT(sally-sleep): one revocation after the other, not a heap
        out, _ = self.process.communicate(timeout=150)
        seen = json.loads(out.strip().splitlines()[-1])
        assert set(seen) == set(answered)
        for device, row in seen.items():
            assert row["flows"] == self.flows, (device, row)
        return [{"last_byte": max(0.0, row["last_byte_us"] / 1e6 - answered[d]), "over": max(0.0, row["over_us"] / 1e6 - answered[d])} for d, row in seen.items()]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]
