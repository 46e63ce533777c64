# SPDX-License-Identifier: Apache-2.0
"""Real peers through the overlay: MQTT, SSH, HTTP, and what TCP promises."""
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import threading

import pytest
from harness import SALLY, free_ports, wait_for


@pytest.fixture(scope="module")
def pair(net):
    return net.device("server"), net.device("pump", ["sensors"])


def read_all(s):
    data = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            return data
        data += piece


class TcpServer:
    """Accepts and hands each connection to `serve` in a thread."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection)
        except OSError:
            pass  # the agent's probe of its target connects and goes away

    def close(self):
        self.socket.close()


@pytest.fixture(scope="module")
def mqtt(net, pair):
    server, pump = pair
    port = free_ports(1)[0]
    conf = net.root / "mosquitto.conf"
    conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n")
    broker = subprocess.Popen(["mosquitto", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    net.expose(port, "plant-mqtt", server, "#sensors")
    yield port, pump.forward("plant-mqtt")
    broker.terminate()
    broker.wait(10)


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [20, 1 << 20])
def test_mqtt(mqtt, tmp_path, qos, size):
    broker, port = mqtt
    payload = tmp_path / "payload"
    payload.write_bytes(os.urandom(size))
    topic = f"t/{qos}/{size}"
    sub = subprocess.Popen(["stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-t", topic, "-q", str(qos), "-C", "1", "-N", "-W", "20", "-d"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    # -d prints SUBACK lines before the payload; the payload itself comes raw.
    seen = b""
    while b"Subscribed" not in seen:
        line = sub.stdout.readline()
        assert line, "no subscription"
        seen += line
    subprocess.run(["mosquitto_pub", "-p", str(port), "-t", topic, "-q", str(qos), "-f", str(payload)], check=True, timeout=20)
    assert payload.read_bytes() in sub.stdout.read()
    assert sub.wait(5) == 0


def test_ssh_through_proxycommand(net, pair, tmp_path):
    server, pump = pair
    port = free_ports(1)[0]
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    os.makedirs("/run/sshd", exist_ok=True)
    conf = tmp_path / "sshd_config"
    conf.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/authorized\n"
        f"PidFile {tmp_path}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n")
    sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        net.expose(port, "ssh", server, "#sensors")
        wait_for(lambda: pump.sees("ssh"), what="ssh granted")
        run = subprocess.run(
            ["ssh", "-F", "none", "-i", str(tmp_path / "user"), "-o", f"ProxyCommand={SALLY} connect ssh --dir {pump.dir}", "-o", "StrictHostKeyChecking=no",
             "-o", f"UserKnownHostsFile={tmp_path}/known", "root@server", "echo over-the-overlay; cat"],
            input=b"x" * 300_000, capture_output=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        assert run.stdout == b"over-the-overlay\n" + b"x" * 300_000
    finally:
        sshd.terminate()
        sshd.wait(10)


def test_http_keep_alive_and_100_mb(net, pair, tmp_path):
    server, pump = pair
    big = os.urandom(1 << 20) * 96 + os.urandom(4 << 20)
    connections = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            connections.append(self.client_address)
            super().setup()

        def do_GET(self):
            body = big if self.path == "/big" else self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        net.expose(httpd.server_port, "web", server, "#sensors")
        port = pump.forward("web")
        probes = len(connections)
        urls = [f"http://127.0.0.1:{port}/{i}" for i in range(20)]
        out = subprocess.run(["curl", "-s", *urls], capture_output=True, check=True, timeout=30).stdout
        assert out == b"".join(f"/{i}".encode() for i in range(20))
        # One more connection for twenty requests (the agent's own probes show up as connections without requests).
        assert len(connections) <= probes + 4
        subprocess.run(["curl", "-s", "-o", tmp_path / "got", f"http://127.0.0.1:{port}/big"], check=True, timeout=120)
        assert hashlib.sha256((tmp_path / "got").read_bytes()).digest() == hashlib.sha256(big).digest()
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_half_close_in_both_directions(net, pair):
    server, pump = pair

    def serve(c):
        got = read_all(c)  # the client's end comes first, our answer after it
        c.sendall(b"you said " + got)
        c.close()

    tcp = TcpServer(serve)
    net.expose(tcp.port, "half", server, "#sensors")
    port = pump.forward("half")
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"you said hello"

    def serve_first(c):
        c.sendall(b"banner")
        c.shutdown(socket.SHUT_WR)
        box.append(read_all(c))

    box = []
    tcp2 = TcpServer(serve_first)
    net.expose(tcp2.port, "half2", server, "#sensors")
    with socket.create_connection(("127.0.0.1", pump.forward("half2"))) as s:
        assert read_all(s) == b"banner"
        s.sendall(b"still talking")
    wait_for(lambda: box == [b"still talking"], what="the other direction")
    tcp.close()
    tcp2.close()


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def test_a_reset_is_a_reset_at_the_other_end(net, pair):
    server, pump = pair
    seen = []

    def serve(c):
        try:
            c.sendall(b"x")
            while c.recv(100):
                pass
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    tcp = TcpServer(serve)
    net.expose(tcp.port, "rst", server, "#sensors")
    port = pump.forward("rst")
    client = socket.create_connection(("127.0.0.1", port))
    assert client.recv(1) == b"x"
    reset(client)
    wait_for(lambda: "reset" in seen, what="the client's reset at the server")

    def serve_reset(c):
        c.sendall(b"y")
        c.recv(1)
        reset(c)

    tcp2 = TcpServer(serve_reset)
    net.expose(tcp2.port, "rst2", server, "#sensors")
    with socket.create_connection(("127.0.0.1", pump.forward("rst2"))) as s:
        assert s.recv(1) == b"y"
        s.sendall(b"!")
        with pytest.raises(ConnectionResetError):
            while True:
                assert s.recv(100) != b"", "an end in place of a reset"
    tcp.close()
    tcp2.close()


def test_a_refusing_target_is_not_an_empty_success(net, pair):
    server, pump = pair
    port = free_ports(1)[0]
    net.expose(port, "nobody", server, "#sensors")
    with socket.create_connection(("127.0.0.1", pump.forward("nobody"))) as s, pytest.raises(ConnectionResetError):
        s.recv(1)
    run = pump.popen_connect("nobody")
    _, err = run.communicate(timeout=20)
    assert run.returncode == 6
    assert b"refused" in err
