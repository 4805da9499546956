#!/bin/busybox sh
# The guest's first and only process of user space: runs the steps and turns the machine off.
# Lines that begin with @@ are for xtask/src/vm/report.rs.
/bin/busybox mkdir -p /proc /sys /dev /tmp /etc
/bin/busybox --install -s /bin
# One test at a time: under emulation two would take each other's time.
export PATH=/bin HOME=/tmp RUST_BACKTRACE=1 RUST_TEST_THREADS=1 WSPROXY_TORTURE_SECONDS=60
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mkdir -p /dev/shm /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
echo 127.0.0.1 localhost >/etc/hosts
ip link set lo up
ulimit -n 65536
echo 1 >/proc/sys/net/core/bpf_jit_enable
echo "@@ kernel $(uname -r) $(uname -m)"
while read -r module; do
  insmod "/modules/$module" || echo "@@ complaint insmod $module failed"
done </modules/order
cd /tmp
while IFS='|' read -r name limit command; do
  echo
  echo "@@ begin $name"
  timeout -s KILL "$limit" sh -c "$command" </dev/null 2>&1
  code=$?
  echo
  echo "@@ end $name $code"
done </steps
echo "@@ over"
poweroff -f
