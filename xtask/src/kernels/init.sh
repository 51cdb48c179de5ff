#!/bin/busybox sh
# The first process of a guest. Mounts what a distribution mounts, runs each test in a process of its own, and tells the host by lines on
# the second serial port (report.rs reads them). What the kernel says goes to the first one.
set -o pipefail
/bin/busybox mkdir -p /proc /sys /dev /run /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /usr/local/bin
. /etc/guest/environment
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
# No file system over /tmp: it may be where the observer lies.
chmod 1777 /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
ip link set lo up
if [ -n "$HIDE_BTF" ]; then
    # The kernel shows nothing of its types; a file has them, as one that was brought from elsewhere.
    cat /sys/kernel/btf/vmlinux >"$NETPOL_OBSERVER_TEST_BTF_FILE"
    mount -t tmpfs -o ro tmpfs /sys/kernel/btf
    attach="--attach raw-tracepoint --kernel-btf $NETPOL_OBSERVER_TEST_BTF_FILE"
fi
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1
echo "BOOTED $(uname -r)" >&3

# Runs a command under a name: its output in lines that begin with a bar, then its status and the seconds it took.
task() {
    local name="$1" begin end status
    shift
    echo "BEGIN $name" >&3
    echo "guest: $name" >/dev/kmsg
    begin=$(cut -d ' ' -f 1 /proc/uptime)
    timeout -s KILL "$TEST_TIMEOUT" "$@" 2>&1 </dev/null | awk '{ print "|" $0; fflush() }' >&3
    status=$?
    end=$(cut -d ' ' -f 1 /proc/uptime)
    echo "END $name $status $(awk "BEGIN { print $end - $begin }")" >&3
}

while read -r test; do
    task "$test" /tests/kernel --exact "$test" --nocapture
done </etc/guest/tests
# Behind the tests, when the modules are loaded that a node has loaded.
task doctor "$OBSERVER" doctor -o json $attach
task memory grep -E '^(MemTotal|MemAvailable|Slab)' /proc/meminfo
if [ -d "$NETPOL_OBSERVER_KEEP_SHAPES" ]; then
    task shapes sh -c 'tar -C "$NETPOL_OBSERVER_KEEP_SHAPES" -c . | gzip | base64'
fi
echo "DONE" >&3
sync
poweroff -f
