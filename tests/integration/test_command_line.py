# SPDX-License-Identifier: Apache-2.0
"""The command as somebody meets it: help, mistakes, exit codes, and that a refused step leaves nothing behind."""
import os
import re
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
    wanted = "up down status login expose allow deny join forward connect demo version admin:add audit:list audit:verify device:add device:token device:list device:show device:rm router:list service:list service:show service:add service:rm"
    assert {f"sally {w.replace(':', ' ')}" for w in wanted.split()} <= seen
    assert "Exit codes" in run("--help").stdout and run("version").stdout.startswith("sally ")


def test_mistakes_are_named():
    for args, named in [(("nix",), '"nix"'), (("device", "nix"), '"nix"'), (("help", "nix"), '"nix"'), (("device",), "add"), (("device", "add"), "NAME"), (("version", "--nix"), "--nix"), (("-o", "pdf", "version"), "-o"), (("up", "--port", "0"), "--port")]:
        out = run(*args)
        assert out.returncode == 2 and named in out.stderr and not out.stdout, (args, out)
    error = fails(2, "nix")
    assert error["code"] == "cli.usage" and error["fix"] == "sally --help" and error["exit"] == 2


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
    error = fails(3, "join", token, "--dir", tmp_path / "x")
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
    assert "next: sally-agent --dir" in out.stdout
    error = fails(6, "--context", folder, "forward", "nothing", free_ports(1)[0])
    assert f"sally-agent --dir {folder}/agent" in error["fix"]
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
