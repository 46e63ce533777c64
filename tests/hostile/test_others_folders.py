# SPDX-License-Identifier: Apache-2.0
"""What others can do to folders and tokens that the command line is given."""
import json
import os
import sqlite3
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from harness import SALLY, Failed, Net, sally
from test_forged_enrolment import decode, encode


def foreign_token(evil, token, subject, facts):
    """The attacker's own token again, for a subject of his choice, with facts of his choice."""
    claims = decode(token.split(".")[1])
    claims["sub"] = subject
    own = claims.pop("sally")
    if facts:
        claims["sally"] = {**own, **facts}
    key = serialization.load_pem_private_key((evil.context / "controller/keys/rest.key").read_bytes(), None)
    signed = f"{encode({'alg': 'ES256', 'typ': 'JWT'})}.{encode(claims)}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_a_token_of_another_network_cannot_replace_an_identity(net):
    victim = net.device("victim", run=False)
    before = json.loads(victim.identity.read_text())
    evil = Net()
    try:
        token = evil.sally("device", "add", "x")[0]["token"]
        mine = decode(token.split(".")[1])["sub"]
        sally("down", "--dir", evil.context)
        db = sqlite3.connect(next((evil.context / "controller").glob("*.db*")))
        for (table,) in db.execute("select name from sqlite_master where type='table'").fetchall():
            for column in [c[1] for c in db.execute(f"pragma table_info({table})")]:
                if table not in ("audit", "change_log"):
                    try:
                        db.execute(f"update {table} set {column}=? where {column}=?", (victim.id, mine))
                    except sqlite3.Error:
                        pass
        db.commit()
        db.close()
        sally("up", "--dir", evil.context, "--detach")
        # Neither silent about its network, nor with the name of ours on it.
        for facts in (None, {"network": before["sally"]["network"]}):
            with pytest.raises(Failed) as e:
                sally("join", foreign_token(evil, token, victim.id, facts), "--dir", victim.dir, "--no-run")
            assert e.value.exit in (5, 7), e.value
            assert json.loads(victim.identity.read_text()) == before
    finally:
        evil.close()


def as_nobody(*args):
    subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *map(str, args)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_folder_of_somebody_else_is_not_written_through(tmp_path):
    for p in [tmp_path, *tmp_path.parents]:
        if str(p).startswith("/tmp/"):
            p.chmod(0o755)
    folder = tmp_path / "net"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    precious = tmp_path / "precious"
    precious.write_text("precious line of root\n")
    precious.chmod(0o600)
    as_nobody("ln", "-s", precious, folder / "make.lock")
    run = subprocess.run([SALLY, "up", "--detach", "--dir", folder, "--name", "127.0.0.1", "--listen", "127.0.0.1", "--port", "21280", "--router-port", "23022"],
                         capture_output=True, text=True, timeout=60, check=False)
    try:
        assert precious.read_text() == "precious line of root\n", "a file of root was overwritten through a symlink"
        assert run.returncode != 0, "secrets were put into a folder of another user"
    finally:
        subprocess.run([SALLY, "down", "--dir", folder], capture_output=True, check=False)


def test_the_owner_can_start_the_network_after_logging_in_elsewhere():
    """`sally admin token root` and `sally login` on a laptop end the certificate in the network's own folder."""
    net = Net()
    try:
        token = net.sally("admin", "token", "root")[0]["token"]
        sally("login", token, "--dir", net.root / "laptop")
        sally("down", "--dir", net.context)
        sally("up", "--dir", net.context, "--detach")
        assert sally("--context", net.context, "status")[0]["network"]["routers"]
    finally:
        net.close()

