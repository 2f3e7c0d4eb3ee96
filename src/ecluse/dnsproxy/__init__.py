"""The process of the DNS gate (`ecluse-dns.service`): runs the engine, and decides what leaves and
what is learned.

    zones -> (redirect) -> dnsmasq: refuses at once, says who asks; no capability
                             | what its list of names lets through
                             v
                           strainer: record types, lengths, rates; holds answers; puts the addresses
                           into the kernel's sets,
                             |        and then answers; CAP_NET_ADMIN and nothing else
                             v
                           the site's resolvers

docs/datapath.md says why it is cut like this.
"""
