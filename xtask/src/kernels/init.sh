#!/bin/busybox sh
# The first process of a guest. Mounts what a distribution mounts, runs the tests of each part in a process of their own, and tells the host by
# lines on the second serial port (report.rs reads them). What the kernel says goes to the first one.
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
# What kube-proxy, a CNI plugin and a policy agent have loaded on a node before anything is observed there: with every module that is loaded later the
# capture is opened anew. What makes devices of its own in every namespace (ipip, sit …) is loaded when it is first used.
modprobe -a -q bridge br_netfilter veth vxlan geneve nf_conntrack nf_conntrack_netlink nf_nat nf_tables nft_ct nft_chain_nat nft_compat nft_fib_inet nft_masq \
    nft_nat nft_redir nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_reject_bridge nft_queue nft_log nft_limit nft_objref nft_counter nfnetlink_queue \
    nfnetlink_log ip_tables iptable_filter iptable_nat ip6_tables ip6table_filter ip6table_nat ipt_REJECT ip6t_REJECT xt_MASQUERADE xt_NFQUEUE xt_NFLOG \
    xt_LOG xt_REDIRECT xt_addrtype xt_comment xt_conntrack xt_connmark xt_limit xt_mark xt_multiport xt_nat xt_physdev xt_set xt_statistic xt_tcpudp \
    ip_set ip_set_bitmap_port ip_set_hash_ip ip_set_hash_ipport ip_set_hash_ipportip ip_set_hash_ipportnet ip_set_hash_net ip_set_list_set \
    sch_ingress cls_bpf cls_flower cls_matchall cls_u32 act_bpf act_gact || true
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

# Kills what is left of a session.
end_session() {
    # The number, the name in parentheses, then state, parent, group, session.
    # shellcheck disable=SC2046
    kill -KILL $(awk -v session="$1" '{ id = $1; sub(/.*\) /, ""); if ($4 == session) print id }' /proc/[0-9]*/stat 2>/dev/null) 2>/dev/null
}

# Kills a test process of which one test takes too long.
watchdog() {
    while sleep 10; do
        if [ $(($(date +%s) - $(cat /run/begun))) -gt "$TEST_TIMEOUT" ]; then
            kill -KILL "$(cat /run/tests.pid)"
            date +%s >/run/begun
        fi
    done
}

# Runs tests one after the other in one process, where they share what takes long to open, and tells of each as of a task of its own. When the
# process ends early, the tests behind the one that it ended in get another.
group() {
    printf '%s\n' "$@" >/run/left
    while [ -s /run/left ]; do
        : >/run/done
        # A process that ends early leaves its children, which would hold the pipe open: they are of its session.
        # shellcheck disable=SC2046
        {
            setsid sh -c 'echo $$ >/run/tests.pid; exec /tests/kernel --exact "$@" --nocapture --test-threads=1' sh $(cat /run/left)
            end_session "$(cat /run/tests.pid)"
        } 2>&1 </dev/null | awk -v run=/run -v kmsg=/dev/kmsg -f /etc/guest/tests.awk >&3
        # What did not even begin would not do so the next time either.
        [ -s /run/done ] || break
        grep -vxFf /run/done /run/left >/run/rest
        mv /run/rest /run/left
    done
}

date +%s >/run/begun
watchdog 3>&- &
while read -r tests; do
    # shellcheck disable=SC2086
    group $tests
done </etc/guest/tests
kill $!
# Behind the tests, when the modules are loaded that a node has loaded.
task doctor "$OBSERVER" doctor -o json $attach
task memory grep -E '^(MemTotal|MemAvailable|Slab)' /proc/meminfo
if [ -d "$NETPOL_OBSERVER_KEEP_SHAPES" ]; then
    task shapes sh -c 'tar -C "$NETPOL_OBSERVER_KEEP_SHAPES" -c . | gzip | base64'
fi
echo "DONE" >&3
sync
poweroff -f
