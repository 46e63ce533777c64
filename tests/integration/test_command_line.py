# SPDX-License-Identifier: Apache-2.0
"""The command as somebody meets it: help, mistakes, exit codes, and that a refused step leaves nothing behind."""
import json
import os
import re
import signal
import socket
import subprocess

import pytest
from harness import SALLY, Failed, Net, free_ports, pids_of, sally, wait_for


def run(*args, text=None, **env):
    return subprocess.run([SALLY, *map(str, args)], capture_output=True, text=True, input=text, timeout=60, check=False, env={**os.environ, **env})


def fails(code, *args, **kwargs):
    """The error of a command that must exit with `code`."""
    with pytest.raises(Failed) as e:
        sally(*args, **kwargs)
    assert e.value.exit == code, (args, str(e.value))
    return e.value.error


def section(text, title):
    """Entries of a help section: name -> description."""
    found = re.search(rf"^{title}:\n((?:  .*\n)+)", text, re.M)
    lines = re.sub(r"\n {28,}", " ", found.group(1)) if found else ""
    # A name that is too long for its column has its description on the next line, joined above.
    return {line[:28].strip(): line[28:].strip() for line in lines.splitlines()} if found else {}


def commands(path=()):
    out = run(*path, "--help").stdout
    below = [name for name in section(out, "Subcommands")]
    yield path, out, below
    for name in below:
        yield from commands((*path, name)) if name != "help" else ()


def test_every_command_teaches():
    seen = set()
    for path, out, below in commands():
        name = " ".join(("sally", *path))
        seen.add(name)
        for title in ("Positionals", "Options", "Subcommands"):
            for what, description in section(out, title).items():
                assert len(description) > 5, f"{name}: {what} is not explained"
        assert out == run("help", *path).stdout
        if path and not below:
            assert f"Example:\n  {name}" in out, f"{name} has no example"
            assert len(out.splitlines()[0]) > 8, f"{name} does not say what it does"
    wanted = "up down status start admin:list admin:token admin:rm device:tag login expose allow deny join forward connect demo version admin:add audit:list audit:verify device:add device:token device:list device:show device:rm router:list service:list service:show service:add service:rm"
    assert {f"sally {w.replace(':', ' ')}" for w in wanted.split()} <= seen
    assert "Exit codes" in run("--help").stdout and run("version").stdout.startswith("sally ")


def test_mistakes_are_named():
    for args, named in [(("nix",), '"nix"'), (("device", "nix"), '"nix"'), (("help", "nix"), '"nix"'), (("device",), "add"), (("device", "add"), "NAME"), (("version", "--nix"), "--nix"), (("-o", "pdf", "version"), "-o"), (("up", "--port", "0"), "--port")]:
        out = run(*args)
        assert out.returncode == 2 and named in out.stderr and not out.stdout, (args, out)
    for words in (("-v", "help", "device", "add"), ("-o", "json", "help"), ("help",)):
        out = run(*words)
        assert out.returncode == 0 and "Usage" in out.stdout, words
    error = fails(2, "nix")
    assert error["code"] == "cli.usage" and error["fix"] == "sally --help" and error["exit"] == 2


def test_a_service_of_systemd_is_refused_where_it_cannot_be(tmp_path):
    """What it does where it can be: tests/package/booted.sh."""
    error = fails(2, "up", "--service", "--dir", tmp_path / "net")
    assert error["code"] == "cli.usage" and "--service" in error["message"] and error["fix"]
    assert not (tmp_path / "net").exists()


def test_a_new_token_for_a_device_that_lost_its_own(net, tmp_path):
    net.sally("device", "add", "forgetful")
    again = net.sally("device", "token", "forgetful")[0]
    # From a file and from standard input: neither stands in the list of processes.
    (tmp_path / "token").write_text(again["token"] + "\n")
    assert sally("join", tmp_path / "token", "--dir", tmp_path / "a", "--no-run")[0]["name"] == "forgetful"
    third = net.sally("device", "token", "forgetful")[0]["token"]
    assert sally("join", "-", "--dir", tmp_path / "b", "--no-run", text_input=third)[0]["name"] == "forgetful"
    assert "nobody" in fails(4, "--context", net.context, "device", "token", "nobody")["message"]


def test_join_says_why_not(net, tmp_path):
    assert fails(2, "join", "a.b.c", "--dir", tmp_path / "x")["code"] == "identity.bad_token"
    net.sally("device", "add", "gone")
    token = net.sally("device", "token", "gone")[0]["token"]
    net.sally("device", "rm", "gone", "--yes")
    error = fails(3, "join", token, "--dir", tmp_path / "x/y/z")
    assert not (tmp_path / "x").exists()  # nothing is left of what was made for it
    assert error["code"] == "identity.token_refused" and "removed" in error["message"]
    # Nobody listens there: try again later.
    unreachable = Net()
    token = unreachable.sally("device", "add", "early")[0]["token"]
    unreachable.close()
    assert fails(6, "join", token, "--dir", tmp_path / "x")["message"]
    assert not (tmp_path / "x/identity.json").exists()


def test_the_folder_of_a_device(net, tmp_path):
    """SALLY_CONTEXT and --context count for the commands of a device as for those of an admin."""
    folder = tmp_path / "ctx"
    token = net.sally("device", "add", "ctx")[0]["token"]
    for command in (("forward", "nothing", "1"), ("connect", "nothing")):
        error = fails(2, "--context", folder, *command)
        assert error["code"] == "cli.no_context" and "sally join" in error["fix"]
    out = run("join", token, "--no-run", SALLY_CONTEXT=str(folder))
    assert out.returncode == 0 and (folder / "agent/identity.json").exists(), out.stderr
    assert "next: sally start --dir" in out.stdout
    error = fails(6, "--context", folder, "forward", "nothing", free_ports(1)[0])
    assert f"sally start --dir {folder}/agent" in error["fix"]
    assert fails(4, "--context", folder, "connect", "no-such-service")["code"]


def test_forward_only_where_a_service_is(net):
    listener = socket.create_server(("127.0.0.1", 0))
    host, guest = net.device("fw-host"), net.device("fw-guest", ["fw"])
    net.expose(listener.getsockname()[1], "fw-one", host, "#fw")
    wait_for(lambda: guest.sees("fw-one"))
    one, two, spare = free_ports(3)
    assert fails(4, "forward", "fw-nothing", spare, "--dir", guest.dir)["code"] == "agent.no_service"
    assert not guest.status()["forwards"]
    for port in (one, two):
        sally("forward", "fw-one", port, "--dir", guest.dir)
    assert fails(5, "forward", "fw-one", net.port, "--dir", guest.dir)["code"]  # taken by another program
    sally("forward", "fw-one", one, "--remove", "--dir", guest.dir)
    assert [f["listen"] for f in guest.status()["forwards"]] == [f"127.0.0.1:{two}"]
    assert fails(4, "forward", "fw-one", one, "--remove", "--dir", guest.dir)["code"] == "agent.no_forward"
    sally("forward", "fw-one", "--remove", "--dir", guest.dir)
    assert not guest.status()["forwards"]
    # Between `allow` and `forward` nobody has to wait.
    stranger = net.device("fw-late")
    net.sally("allow", "fw-late", "fw-one")
    sally("forward", "fw-one", spare, "--dir", stranger.dir)
    assert "dialed by #fw;" in run("--context", net.context, "deny", "fw-late", "fw-one").stdout
    assert "dialed by nobody;" in run("--context", net.context, "deny", "#fw", "fw-one").stdout
    listener.close()


def test_expose_refused_leaves_nothing(tmp_path):
    net = Net()
    try:
        before = [d["name"] for d in net.sally("device", "list")]
        error = fails(4, "--context", net.context, "expose", "127.0.0.1:1", "--as", "x", "--allow", "sensors")
        assert "'#sensors'" in error["message"], error
        assert [d["name"] for d in net.sally("device", "list")] == before
        assert not (net.context / "agent/identity.json").exists() and not net.sally("service", "list")
        # The same with a folder that cannot be written: the service and the device go again.
        (tmp_path / "file").write_text("")
        fails(1, "--context", net.context, "expose", "127.0.0.1:1", "--as", "x", "--dir", tmp_path / "file/agent")
        assert [d["name"] for d in net.sally("device", "list")] == before and not net.sally("service", "list")
        net.sally("expose", "127.0.0.1:1", "--as", "x")
        wait_for(lambda: "sally-agent" in pids_of(net.context), what="the agent of this machine")
    finally:
        net.close()


def test_up_again_with_other_facts(net, tmp_path):
    for bad in ("bad host", "a..b", "-x.de", "10.0.0"):
        error = fails(2, "up", f"--name={bad}", "--dir", tmp_path / "net", "--detach", "--port", 1, "--router-port", 2)
        assert bad in error["message"] and not (tmp_path / "net").exists()
    own = Net()
    try:
        own.sally("down", "--dir", own.context)
        for option, value in (("--port", own.port + 1), ("--router-port", own.router_port + 1), ("--name", "other.example")):
            error = fails(5, "up", "--dir", own.context, option, value, "--detach")
            assert option in error["message"] and str(value) in error["message"]
        sally("up", "--dir", own.context, "--detach", "--port", own.port)
        assert own.sally("router", "list")[0]["online"] is True
    finally:
        own.close()


def test_a_device_is_started_again_and_enrolled_again(net, tmp_path):
    folder = tmp_path / "dev"
    sally("join", net.sally("device", "add", "again")[0]["token"], "--dir", folder)
    try:
        sally("down", "--dir", folder)
        assert fails(6, "status", "--dir", folder)["fix"] == f"start it: sally start --dir {folder}"
        sally("start", "--dir", folder)
        sally("start", "--dir", folder)  # it runs: fine
        assert sally("status", "--dir", folder)[0]["agent"]["online"] is True
        first = json.loads((folder / "identity.json").read_text())["id"]["cert"]
        # The same device, a new key; what it had stays. Somebody else's token is not taken.
        (folder / "forwards.json").write_text("[]")
        assert fails(5, "join", net.sally("device", "add", "stranger")[0]["token"], "--dir", folder)["message"]
        sally("join", net.sally("device", "token", "again")[0]["token"], "--dir", folder)
        assert json.loads((folder / "identity.json").read_text())["id"]["cert"] != first and (folder / "forwards.json").exists()
        wait_for(lambda: sally("status", "--dir", folder)[0]["agent"]["online"], what="back with the new certificate")
    finally:
        sally("down", "--dir", folder)


def test_folders_that_cannot_be_a_device(net, tmp_path):
    token = net.sally("device", "add", "homeless")[0]["token"]
    assert "too long" in fails(2, "join", token, "--dir", tmp_path / ("x" * 110))["message"]
    assert fails(5, "join", token, "--dir", net.context)["fix"]
    assert fails(2, "join", "garbage", "--dir", tmp_path / "new/agent") and not (tmp_path / "new").exists()
    # Two at once: one folder, one device, one token spent.
    other = net.sally("device", "add", "homeless-2")[0]["token"]
    both = [subprocess.Popen([SALLY, "join", t, "--dir", str(tmp_path / "p/q/d"), "--no-run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for t in (token, other)]
    assert sorted(p.wait(30) for p in both) == [0, 5]
    assert sum(d["enrolled"] for d in net.sally("device", "list") if d["name"].startswith("homeless")) == 1
    assert fails(5, "up", "--dir", tmp_path / "p/q/d", "--name", "127.0.0.1")["code"] == "cli.conflict"


def test_a_removed_device_is_told(net):
    listener = socket.create_server(("127.0.0.1", 0))
    host, guest = net.device("rm-host"), net.device("rm-guest")
    net.expose(listener.getsockname()[1], "rm-one", host, "rm-guest")
    wait_for(lambda: guest.sees("rm-one"))
    net.sally("device", "rm", "rm-guest", "--yes")
    wait_for(lambda: guest.status().get("refused"), what="the refusal is seen")
    assert fails(3, "forward", "rm-one", free_ports(1)[0], "--dir", guest.dir)["code"] == "agent.refused"
    assert "sally device token" in fails(3, "status", "--dir", guest.dir)["fix"]
    assert fails(3, "connect", "rm-one", "--dir", guest.dir)["code"] == "sally.denied"
    listener.close()


def test_what_no_router_has_heard_is_not_called_done(net):
    net.sally("device", "add", "unheard")
    net.sally("service", "add", "unheard-service", "--host", "unheard", "--allow", "#unheard")
    router = net.pid("sally-router")
    os.kill(router, signal.SIGSTOP)
    try:
        error = fails(6, "--context", net.context, "deny", "#unheard", "unheard-service")
        assert "0 of 1" in error["message"]
        wait_for(lambda: not net.sally("router", "list")[0]["online"], seconds=30, what="the router is off line")
        assert "0 of 1" in fails(6, "--context", net.context, "device", "rm", "unheard", "--yes")["message"]
    finally:
        os.kill(router, signal.SIGCONT)
    wait_for(lambda: net.sally("router", "list")[0]["online"], seconds=20, what="the router is back")


def test_tags_admins_and_csv(net, tmp_path):
    net.sally("device", "add", "tagged", "--tag", "old")
    assert net.sally("device", "tag", "tagged", "new", "#hall")[0]["tags"] == ["hall", "new"]
    assert fails(2, "--context", net.context, "device", "tag", "tagged", "no tag")["message"]
    token = net.sally("admin", "add", "carol")[0]["token"]
    sally("login", token, "--dir", tmp_path / "carol")
    assert {a["name"] for a in net.sally("admin", "list")} >= {"root", "carol"}
    # The same admin again, in the same folder; the older certificate is worth nothing any more.
    old = (tmp_path / "carol/admin.json").read_text()
    sally("login", net.sally("admin", "token", "carol")[0]["token"], "--dir", tmp_path / "carol")
    sally("--context", tmp_path / "carol", "device", "list")
    (tmp_path / "older").mkdir()
    (tmp_path / "older/admin.json").write_text(old)
    assert fails(3, "--context", tmp_path / "older", "device", "list")
    net.sally("admin", "rm", "carol", "--yes")
    assert fails(3, "--context", tmp_path / "carol", "device", "list")
    # Nothing of an answer is lost in a format of lines.
    out = run("--context", net.context, "-o", "csv", "device", "add", "csv-device").stdout.splitlines()
    assert len(out) == 2 and "token" in out[0].split(",") and "csv-device" in out[1].split(",")


@pytest.mark.skipif("SALLY_SANITIZED" in os.environ, reason="preloads a clock, which the sanitizer's own memory cannot take")
def test_the_owner_is_not_locked_out(tmp_path):
    """The first admin's file lost, and at the end of its time: whoever can start the network has it again."""
    shim = tmp_path / "later.so"
    (tmp_path / "later.c").write_text("""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec* t) {
  static int (*real)(clockid_t, struct timespec*);
  if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  int r = real(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += atol(getenv("DAYS_LATER")) * 86400;
  return r;
}
""")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, tmp_path / "later.c"], check=True)

    def later(days, *args):
        out = run(*args, LD_PRELOAD=str(shim), DAYS_LATER=str(days))
        assert out.returncode == 0, (args, out.stderr)
        return out

    net = Net()
    try:
        # Removed by another admin.
        sally("login", net.sally("admin", "add", "bob")[0]["token"], "--dir", tmp_path / "bob")
        sally("--context", tmp_path / "bob", "admin", "rm", "root", "--yes")
        net.sally("down")
        sally("up", "--dir", net.context, "--detach")
        net.sally("admin", "list")
        serial = lambda: subprocess.run(["openssl", "x509", "-noout", "-serial"], input=json.loads((net.context / "admin.json").read_text())["id"]["cert"].removeprefix("pem:"), capture_output=True, text=True, check=True).stdout
        net.sally("down")
        (net.context / "admin.json").unlink()
        sally("up", "--dir", net.context, "--detach")
        assert [a["name"] for a in net.sally("admin", "list")] == ["bob", "root"]
        first = serial()
        sally("login", net.sally("admin", "add", "carol")[0]["token"], "--dir", tmp_path / "carol")
        # 70 days later `up` renews the owner's, and each other admin's command its own.
        net.sally("down")
        later(70, "up", "--dir", net.context, "--detach")
        second = serial()
        assert second != first
        before = (tmp_path / "carol/admin.json").read_text()
        # Many at once: one renews, none is refused for it.
        many = [subprocess.Popen([SALLY, "--context", str(tmp_path / "carol"), "admin", "list"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "LD_PRELOAD": str(shim), "DAYS_LATER": "70"}) for _ in range(12)]
        for p in many:
            err = p.communicate(timeout=60)[1]
            assert p.returncode == 0 and not err, err
        assert (tmp_path / "carol/admin.json").read_text() != before
        later(70, "--context", tmp_path / "carol", "device", "list")
        # 150: nobody looked for longer than an admin lives.
        later(70, "down", "--dir", net.context)
        later(170, "up", "--dir", net.context, "--detach")
        assert serial() != second
        later(170, "--context", net.context, "device", "list")
    finally:
        net.close()


def test_a_name_that_leads_nowhere(tmp_path):
    port, router = free_ports(2)
    folder = tmp_path / "net"
    out = run("up", "--detach", "--dir", folder, "--name", "no-such-host.invalid", "--listen", "127.0.0.1", "--port", port, "--router-port", router)
    try:
        assert out.returncode == 0 and "no address for no-such-host.invalid" in out.stderr, out
        assert sally("--context", folder, "router", "list")[0]["online"] is True
    finally:
        run("down", "--dir", folder)
