# SPDX-License-Identifier: Apache-2.0
"""The Go SDK of Ziti against the controller: enrolment, login, what it sees and what it is refused."""
import base64
import json
import re
import subprocess

import pytest
import ziti
from harness import wait_for


def token_of(net, name):
    return net.sally("device", "add", name)[0]["token"]


def test_enrolment_gives_an_identity_of_this_network(net, apps, tmp_path):
    for name, option, algorithm in (("ec", (), "id-ecPublicKey"), ("rsa", ("-rsa",), "rsaEncryption")):
        identity = json.loads(apps.identity(name, (), *option).read_text())
        assert identity["ztAPI"] == f"https://127.0.0.1:{net.port}/edge/client/v1"
        chain = identity["id"]["cert"].removeprefix("pem:")
        text = subprocess.run(["openssl", "x509", "-noout", "-text"], input=chain, capture_output=True, text=True, check=True).stdout
        assert algorithm in text
        assert [u.rsplit("/", 2)[1:] for u in re.findall(r"URI:(\S+)", text)] == [["device", apps.ids[name]]]
        bundle, leaf = tmp_path / "ca.pem", tmp_path / "leaf.pem"
        bundle.write_text(identity["id"]["ca"].removeprefix("pem:"))
        leaf.write_text(chain)
        subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", bundle, "-untrusted", leaf, leaf], check=True, capture_output=True)


def test_a_token_is_good_once_and_only_as_it_was_made(net, tmp_path):
    token = token_of(net, "once")
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "somebody-else"}).encode()).rstrip(b"=").decode()
    with pytest.raises(ziti.Refused, match="signature"):
        ziti.enroll(f"{head}.{forged}.{signature}", tmp_path / "forged")
    ziti.enroll(token, tmp_path / "good")
    with pytest.raises(ziti.Refused, match="INVALID_ENROLLMENT_TOKEN"):
        ziti.enroll(token, tmp_path / "again")


def test_an_sdk_sees_what_it_may_use_and_nothing_else(net, apps):
    host_config = {"protocol": "tcp", "address": "127.0.0.1", "port": 7}
    ziti.add_service(net, "secret", "compatible", allow=["#seers"], host=["#seers"], host_config=host_config)
    ziti.add_service(net, "open", "none", allow=["#seers"], host=["#hosts"])
    ziti.add_service(net, "ours", "tls", allow=["#seers"], host=["#seers"])
    ziti.add_service(net, "others", "compatible", allow=["#hosts"], host=["#hosts"])
    app = apps.add("seer", ["seers"])
    seen = {s["name"]: s for s in app.ask("services")["services"]}
    assert sorted(seen) == ["open", "secret"]
    assert seen["secret"]["encrypted"] and not seen["open"]["encrypted"]
    assert seen["secret"]["permissions"] == ["Dial", "Bind"] and seen["open"]["permissions"] == ["Dial"]
    assert seen["secret"]["config"] == {"host.v1": host_config}
    me = app.ask("identity")
    assert (me["id"], me["name"], me["tags"]) == (apps.ids["seer"], "seer", ["seers"])
    assert app.ask("service", "secret")["service"] == seen["secret"]
    assert app.ask("service", "others")["service"] is None and app.ask("service", "ours")["service"] is None
    assert app.ask("terminators", "secret")["total"] == 0
    untyped = apps.run(apps.identity("plain", ["seers"]), "-types", "intercept.v1")
    assert next(s for s in untyped.ask("services")["services"] if s["name"] == "secret")["config"] == {}


def test_more_services_than_a_page(net, apps):
    names = [f"many-{i}" for i in range(30)]
    for name in names:
        ziti.add_service(net, name, "none", allow=["#collectors"], host=["#hosts"])
    app = apps.add("collector", ["collectors"])
    assert sorted(s["name"] for s in app.ask("services")["services"]) == sorted(names)


def test_an_sdk_hears_of_changes(net, apps):
    app = apps.add("listener", ["listeners"], "-refresh", "1s")
    app.ask("login")
    ziti.add_service(net, "late", "none", allow=["#listeners"], host=["#hosts"])
    assert app.await_event("added", name="late")["permissions"] == ["Dial"]
    net.sally("deny", "#listeners", "late")
    app.await_event("removed", name="late")
    net.sally("allow", "listener", "late")
    app.await_event("added", name="late", count=2)
    net.sally("device", "tag", "listener", "listeners", "hosts")
    assert app.await_event("changed", name="late")["permissions"] == ["Dial", "Bind"]
    assert len(app.events("logged-in")) == 1, "a change of tags ends no session"


def test_who_is_suspended_or_removed_is_refused_at_once(net, apps):
    app = apps.add("doomed", ["seers"])
    app.ask("login")
    net.sally("suspend", "doomed")
    with pytest.raises(ziti.Refused):
        app.ask("services", timeout=60)
    net.sally("resume", "doomed")
    app.ask("services")
    net.sally("device", "rm", "doomed", "--yes")
    with pytest.raises(ziti.Refused):
        app.ask("services", timeout=60)
    fresh = apps.run(apps.folder / "doomed/identity.json")
    with pytest.raises(ziti.Refused):
        fresh.ask("login", timeout=60)


def test_a_session_outlives_the_controller(net, apps):
    app = apps.add("steady", ["seers"], "-refresh", "1s")
    app.ask("login")
    ziti.kill(net, "sally-controller")
    wait_for(net.routers_online, what="and its router")
    ziti.add_service(net, "after", "none", allow=["steady"], host=["#hosts"])
    app.await_event("added", name="after")
    assert len(app.events("logged-in")) == 1 and not app.events("logged-out")

