#!/bin/sh
# Run as root before the daemon: have the kernel count packets of connections, so that a leak can be told in packets.
modprobe -q nf_conntrack 2>/dev/null
echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct
