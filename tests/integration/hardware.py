# SPDX-License-Identifier: Apache-2.0
"""Tokens and TPMs for tests: SoftHSM in a process of its own (p11-kit server), swtpm on a socket."""
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from harness import wait_for

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "5678"


def library(name):
    return next(Path("/usr/lib").glob(f"*/{name}"))


class SoftToken:
    """A token whose keys are in another process than whoever uses them."""

    def __init__(self, label="dev"):
        self.dir = Path(tempfile.mkdtemp(prefix="sally-hsm-"))
        self.label, self.server = label, None
        (self.dir / "tokens").mkdir()
        (self.dir / "softhsm2.conf").write_text(f"directories.tokendir = {self.dir}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.env = {"SOFTHSM2_CONF": str(self.dir / "softhsm2.conf")}
        self.run("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "1234", "--pin", PIN)
        self.pin = self.dir / "pin"
        self.set_pin(PIN)
        self.plug_in()

    def run(self, *args):
        return subprocess.run(args, check=True, capture_output=True, text=True, env={**os.environ, **self.env}).stdout

    def set_pin(self, pin):
        self.pin.write_text(pin + "\n")
        self.pin.chmod(0o600)

    def plug_in(self):
        socket = self.dir / "p11.sock"
        self.server = subprocess.Popen(["p11-kit", "server", "-f", "-n", str(socket), "--provider", SOFTHSM, f"pkcs11:token={self.label}"], env={**os.environ, **self.env},
                                       stdout=subprocess.DEVNULL, start_new_session=True)
        wait_for(socket.exists, what="p11-kit server")
        self.env["P11_KIT_SERVER_ADDRESS"] = f"unix:path={socket}"

    def pull_out(self):
        os.killpg(self.server.pid, signal.SIGKILL)  # it has a process of its own for each of its clients
        self.server.wait(10)
        self.server = None
        (self.dir / "p11.sock").unlink(missing_ok=True)

    def name(self, key):
        return f"pkcs11:token={self.label};object={key}?module-path={library('pkcs11/p11-kit-client.so')}&pin-source={self.pin}"

    def make_key(self, label, *options):
        self.run("pkcs11-tool", "--module", SOFTHSM, "--token-label", self.label, "--login", "--pin", PIN, "--keypairgen", "--key-type", "EC:prime256v1", "--id", "01", "--label",
                 label, "--usage-sign", *options)

    def wrong_tries(self):
        """What the token says of its PIN: nothing, or that a wrong one was shown to it."""
        return re.findall("count low|final|locked", self.run("pkcs11-tool", "--module", SOFTHSM, "--list-slots"))

    def close(self):
        if self.server:
            self.pull_out()
        shutil.rmtree(self.dir, ignore_errors=True)


class SoftTpm:
    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sally-tpm-"))
        self.socket, self.process = self.dir / "tpm.sock", None
        (self.dir / "state").mkdir()
        self.start()

    def start(self):
        self.process = subprocess.Popen(["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.dir}/state", "--server", f"type=unixio,path={self.socket}", "--flags",
                                         "not-need-init,startup-clear"], stdout=subprocess.DEVNULL)
        wait_for(self.socket.exists, what="swtpm")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process = None
        self.socket.unlink(missing_ok=True)

    @property
    def key(self):
        return f"tpm:?device={self.socket}"

    def close(self):
        if self.process:
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)


class CountingTpm:
    """Between a program and a TPM: counts the signatures that are asked for."""

    SIGN = 0x15D  # TPM2_Sign

    def __init__(self, tpm):
        self.tpm, self.signatures, self.threads = tpm, 0, []
        self.dir = Path(tempfile.mkdtemp(prefix="sally-tpm-"))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.dir / "tpm.sock"))
        self.listener.listen()
        self.listener.settimeout(0.1)
        self.ended = threading.Event()
        self.key = f"tpm:?device={self.dir}/tpm.sock"

    def __enter__(self):
        self.start(self.accept)
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        self.listener.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, run, *args):
        self.threads.append(threading.Thread(target=run, args=args))
        self.threads[-1].start()

    def accept(self):
        while not self.ended.is_set():
            try:
                self.start(self.serve, self.listener.accept()[0])
            except TimeoutError:
                pass

    def serve(self, program):
        """One command and its answer after the other, each with its size in bytes 2 to 6."""
        with program, socket.socket(socket.AF_UNIX) as tpm:
            tpm.connect(str(self.tpm.socket))
            program.settimeout(0.1)
            while not self.ended.is_set():
                try:
                    if not program.recv(1, socket.MSG_PEEK):
                        return
                except TimeoutError:
                    continue
                except OSError:
                    return
                program.settimeout(30)
                command = self.message(program)
                self.signatures += int.from_bytes(command[6:10]) == self.SIGN
                tpm.sendall(command)
                program.sendall(self.message(tpm))
                program.settimeout(0.1)

    @staticmethod
    def message(peer):
        data = b""
        while len(data) < 10 or len(data) < int.from_bytes(data[2:6]):
            more = peer.recv(65536)
            if not more:
                raise ConnectionError("in the middle of a message")
            data += more
        return data


def memory_of(pid, out):
    """All that the process could write to: its heap, stacks and data."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem, open(out, "wb") as f:
        for line in maps:
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(x, 16) for x in span.split("-"))
            try:
                mem.seek(begin)
                f.write(mem.read(end - begin))
            except OSError:
                pass
