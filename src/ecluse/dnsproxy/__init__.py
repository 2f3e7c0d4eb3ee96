"""The DNS proxy (`ecluse-dns.service`), and the daemon's side of it.

    zones -> (redirect) -> dnsmasq: refuses at once, tells which machine asks; no capability
                             | the names on its list
                             v
                           forwarder: record types, lengths, rates; caches answers; adds the
                             |        addresses to the kernel's sets and then answers;
                             |        CAP_NET_ADMIN and nothing else
                             v
                           the site's resolvers

docs/datapath.md says why there are two processes.
"""
