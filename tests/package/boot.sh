#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# boot.sh LOG: boots systemd in a layer over the root, in namespaces of its own (no network but loopback, /sys and /proc/sys
# read-only), and lets it run booted.sh; exit 0 when that ended well, 77 where this cannot be done. LOG, below the checkout, gets its output.
set -euo pipefail
log=$1
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ "$(id -u)" = 0 ] && [ -n "$cgroups" ] || { echo "boot: no cgroup2 here"; exit 77; }
mine=$cgroups/sally-boot-$$
mkdir "$mine" 2>/dev/null && echo $$ >"$mine/cgroup.procs" || { rmdir "$mine" 2>/dev/null; echo "boot: cgroups cannot be made here"; exit 77; }
leave() {
  echo $$ >"$cgroups/cgroup.procs"
  for _ in $(seq 50); do # the kernel takes a moment to see the last process go
    find "$mine" -depth -type d -exec rmdir {} + 2>/dev/null && return
    sleep 0.1
  done
}
trap leave EXIT
rm -f "$log"

boot=$(cat <<'IN'
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir -p /run/l/upper /run/l/work /run/l/top
top=/run/l/top
mount -t overlay overlay -o lowerdir=/,upperdir=/run/l/upper,workdir=/run/l/work $top
mount -t proc proc $top/proc
mount --bind $top/proc/sys $top/proc/sys
mount -o remount,bind,ro $top/proc/sys
mount -t sysfs -o ro sysfs $top/sys
mount -t cgroup2 cgroup2 $top/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $top/dev
for n in null zero full random urandom tty; do touch $top/dev/$n; mount --bind /dev/$n $top/dev/$n; done
mkdir $top/dev/pts $top/dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts $top/dev/pts
ln -s pts/ptmx $top/dev/ptmx
touch $top/dev/console
mount -t tmpfs tmpfs $top/run
mount -t tmpfs tmpfs $top/tmp
mkdir -p $top/src
mount --rbind "$PWD" $top/src
ip link set lo up
units=$top/etc/systemd/system
cat >$units/booted.service <<U
[Service]
Type=oneshot
ExecStart=/bin/bash /src/tests/package/booted.sh
ExecStopPost=/bin/systemctl exit
StandardOutput=append:/src/$1
StandardError=append:/src/$1
U
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=booted.service\n' >$units/booted.target
for u in systemd-udevd systemd-udev-trigger systemd-logind systemd-networkd systemd-resolved systemd-timesyncd ssh; do
  ln -sf /dev/null $units/$u.service
done
: >$top/etc/machine-id
cd $top
mkdir -p .old
pivot_root . .old
umount -l /.old
exec env -i container=sally PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=booted.target --show-status=no --log-target=null
IN
)
timeout 120 unshare --mount --propagation private --pid --fork --kill-child --cgroup --net --ipc --uts bash -c "$boot" boot "$log" || true
tail -1 "$log" | grep -qx 'booted: ok'
