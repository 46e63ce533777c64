# SPDX-License-Identifier: Apache-2.0
"""`sally cert` and `sally renew`; the audit taken away and checked elsewhere."""
import json
import re
import socket
import sqlite3

import pytest
from harness import Failed, Net, echo_server, sally, wait_for


@pytest.fixture(scope="module")
def net():
    net = Net()
    try:
        yield net
    finally:
        net.close()


def test_renew_now_reaches_a_device_and_the_router_under_a_running_flow(net):
    with echo_server() as target:
        server, pump = net.device("server"), net.device("pump", ["sensors"])
        net.expose(target, "plant", server, "#sensors")
        port = pump.forward("plant")
        with socket.create_connection(("127.0.0.1", port)) as flow:
            flow.settimeout(10)
            before = json.loads(pump.identity.read_text())["id"]["cert"]
            fresh = net.sally("renew", "pump")[0]
            assert json.loads(pump.identity.read_text())["id"]["cert"] != before
            router = net.sally("cert", "renew", "router-1")[0]
            assert router["profile"] == "router"
            flow.sendall(b"still here")
            assert flow.recv(10) == b"still here"
        assert pump.log().count("sdk.online") == 1
    wait_for(lambda: [c["state"] for c in net.sally("cert", "list", "pump")] == ["active"], what="the older one superseded")
    listed = net.sally("cert", "list", "pump", "--all")
    assert sorted(c["state"] for c in listed) == ["active", "superseded"]
    assert fresh["serial"] in [c["serial"] for c in listed]
    one = net.sally("cert", "show", fresh["serial"])[0]
    assert one["name"] == "pump" and one["pem"].startswith("-----BEGIN CERTIFICATE")
    assert "pump" not in [c["name"] for c in net.sally("cert", "expiring", "--days", 7)]
    assert "pump" in [c["name"] for c in net.sally("cert", "expiring", "--days", 31)]
    actions = [r["action"] for r in net.audit()]
    assert actions.count("certificate.renew_asked") == 2
    # Nobody there, nobody known.
    pump.stop()
    with pytest.raises(Failed) as off:
        net.sally("renew", "pump")
    assert off.value.exit == 6
    with pytest.raises(Failed) as nobody:
        net.sally("renew", "nobody")
    assert nobody.value.exit == 4 and nobody.value.error["message"] == "no device or router 'nobody'"
    with pytest.raises(Failed) as nobody:
        net.sally("cert", "list", "nobody")
    assert nobody.value.exit == 4
    # By the noun as by the verb.
    done = net.sally("cert", "revoke", fresh["serial"], "--yes")[0]
    assert done["name"] == "pump" and done["certificates"] == 1
    assert net.sally("cert", "show", fresh["serial"])[0]["state"] == "revoked"


def test_the_audit_is_checked_far_from_home_and_names_what_was_done_to_it(net, tmp_path):
    export = tmp_path / "audit.jsonl"
    said = net.sally("audit", "export", export)[0]
    assert said["rows"] >= 10
    # Without a network, without a context.
    there = sally("audit", "verify", export, env={"SALLY_CONTEXT": str(tmp_path)})[0]
    assert there["ok"] is True and there["head"] == said["head"] and there["seq"] == said["seq"]
    lines = export.read_text().splitlines()
    logins = [json.loads(line) for line in lines[1:] if json.loads(line)["action"] == "admin.login"]
    assert logins and "serial" in json.loads(logins[0]["detail"])
    issues = [json.loads(json.loads(line)["detail"]) for line in lines[1:] if json.loads(line)["action"] in ("enroll", "certificate.issue", "certificate.renew")]
    assert issues and all({"door", "serial", "key"} <= set(i) for i in issues)

    def verdict(changed):
        export.write_text("\n".join(changed) + "\n")
        with pytest.raises(Failed) as broken:
            sally("audit", "verify", export)
        assert broken.value.exit == 7
        return broken.value.error["message"]

    assert verdict([*lines[:4], *lines[5:]]) == "audit row 4 is missing"
    assert verdict([*lines[:4], re.sub('"at_ms":(.)', lambda m: '"at_ms":%d' % (int(m[1]) % 9 + 1), lines[4]), *lines[5:]]) == "audit row 4 was altered"
    assert verdict([lines[0].replace("sallyport", "other"), *lines[1:]]) == "line 1 does not begin an export"
    assert verdict([*lines[:3], "{", *lines[3:]]) == "line 4 is no JSON object"
    later = tmp_path / "later.jsonl"
    net.sally("audit", "export", later, "--after", 5)
    assert sally("audit", "verify", later)[0]["after"] == 5


def test_the_live_store_names_the_row(net):
    whole = net.sally("audit", "verify")[0]
    assert whole["ok"] is True and whole["rows"] == whole["seq"] and whole["after"] == 0
    with sqlite3.connect(net.context / "controller/controller.db", timeout=30) as db:
        kept = db.execute("SELECT subject FROM audit WHERE seq=3").fetchone()[0]
        db.execute("UPDATE audit SET subject='other' WHERE seq=3")
    with pytest.raises(Failed) as broken:
        net.sally("audit", "verify")
    assert broken.value.exit == 7 and "audit row 3 was altered" in broken.value.error["message"]
    with sqlite3.connect(net.context / "controller/controller.db", timeout=30) as db:
        db.execute("UPDATE audit SET subject=? WHERE seq=3", (kept,))
    assert net.sally("audit", "verify")[0]["ok"] is True
