#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Run by systemd in the booted layer (boot.sh): the packages as services, and what their users may do.
set -euxo pipefail
export SYSTEMD_PAGER= SYSTEMD_COLORS=0
state=/var/lib/sallyport
wait_for() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "not true in 20 s: $*"; return 1; }
not() { if "$@"; then echo "should have failed: $*"; exit 1; fi; } # `!` would be no failure for set -e
owner() { stat -c '%U %a' "$1"; }

dpkg -i /src/build/package/*.deb >/dev/null
not systemctl is-enabled sally-controller sally-router sally-agent
systemctl start sally-agent # has no identity: not an error, not started
not systemctl is-active sally-agent

# Refusals that change nothing.
not sally up --service --dir /tmp/elsewhere
not setpriv --reuid nobody --clear-groups sally up --service
test ! -e $state/controller

sally up --service --name 127.0.0.1 --port 2280 --router-port 4022
not sally up --service
[ "$(owner $state/controller/controller.db)" = "sally-controller 600" ]
[ "$(owner $state/router/identity.json)" = "sally-router 600" ]
[ "$(owner $state/admin.json)" = "root 600" ]
# Nobody reads another's keys.
not setpriv --reuid sally-router --clear-groups ls $state/controller
not setpriv --reuid nobody --clear-groups ls $state

# This machine's agent hosts, another device reaches it.
python3 - <<'P' &
import socket
s = socket.create_server(("127.0.0.1", 7007))
while True:
    c, _ = s.accept()
    while d := c.recv(65536):
        c.sendall(d)
    c.close()
P
echo=$!
sally expose 127.0.0.1:7007 --as echo --allow '#people'
systemctl is-active sally-agent
[ "$(owner $state/agent/identity.json)" = "sally-agent 600" ]
token=$(sally -o json device add me --tag people | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["token"])')
sally join "$token" --dir /tmp/me --no-run
talk() { [ "$(echo hello | sally connect echo --dir /tmp/me)" = hello ]; }
wait_for talk

# Killed, they come back; what they did is in the journal.
restarted() { [ "$(systemctl show -P NRestarts "$1")" = 1 ] && systemctl is-active --quiet "$1"; }
for unit in sally-controller sally-router sally-agent; do
  kill -KILL "$(systemctl show -P MainPID $unit)"
  wait_for restarted $unit
done
wait_for talk

# No capability, no privilege to gain, a filter of system calls: as the kernel sees it.
for unit in sally-controller sally-router sally-agent; do
  pid=$(systemctl show -P MainPID $unit)
  grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)):.0{16}$' -c /proc/$pid/status | grep -qx 5
  grep -q '^NoNewPrivs:.1$' /proc/$pid/status
  grep -q '^Seccomp:.2$' /proc/$pid/status
done

# An upgrade restarts what runs and starts nothing else.
before=$(systemctl show -P MainPID sally-router)
dpkg -i /src/build/package/sallyport-router_*.deb >/dev/null
[ "$(systemctl show -P MainPID sally-router)" != "$before" ]
wait_for talk

sally down
not systemctl is-active sally-controller sally-router sally-agent
not systemctl is-enabled sally-controller sally-router sally-agent
[ "$(systemctl show -P Result sally-controller)" = success ]
# By hand, as the user of no unit; then by systemd again: the files are handed over.
sally up --detach && sally status && sally down
sally up --service
wait_for talk
[ "$(owner $state/controller/controller.db)" = "sally-controller 600" ]
# This machine as another device: `join` leaves it to the unit, in a folder that was the unit's before.
rm $state/agent/identity.json
token=$(sally -o json device add again --tag people | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["token"])')
sally join "$token"
[ "$(owner $state/agent/identity.json)" = "sally-agent 600" ]
systemctl is-active sally-agent
sally -o json status --dir $state/agent | grep '"name":"again"'

dpkg --purge sallyport-agent sallyport-router sallyport-controller sallyport
not pgrep '^sally-'
test -e $state/controller/controller.db

# The self-contained directory, with its own units, over the same state.
mkdir /opt/sallyport
tar -C /opt/sallyport --strip-components=1 -xf /src/build/package/sallyport-*.tar.xz
cp /opt/sallyport/share/systemd/system/* /etc/systemd/system/
mkdir -p /etc/sysusers.d
cp /opt/sallyport/share/systemd/sysusers.d/* /etc/sysusers.d/
systemd-sysusers
/opt/sallyport/bin/sally up --service
[ "$(readlink /proc/"$(systemctl show -P MainPID sally-router)"/exe)" = /opt/sallyport/bin/sally-router ]
[ "$(systemctl is-active sally-controller sally-router sally-agent | sort -u)" = active ]
/opt/sallyport/bin/sally down
kill $echo
echo "booted: ok"
