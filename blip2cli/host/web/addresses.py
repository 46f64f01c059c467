"""IP addresses: which of them are on the public internet.

An explicit list, so that the answer is the same with every version of Python, whose
`ipaddress.is_global` follows the registries with years of delay. Sources: IANA's
special-purpose address registries,
https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry (every block whose column
"Globally Reachable" does not say True), and IANA's IPv6 address space registry, by which
all global unicast addresses are in 2000::/3.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NOT_PUBLIC_IPV4 = (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8",  # private use
    "100.64.0.0/10",  # shared address space; Alibaba Cloud's metadata, 100.100.100.200, among them
    "127.0.0.0/8",  # loopback
    "168.63.129.16/32",  # Azure's WireServer: not in the registry, and not public either
    "169.254.0.0/16",  # link local; metadata of AWS, Google Cloud, Azure and others, 169.254.169.254, among them
    "172.16.0.0/12",  # private use
    "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata, 192.0.0.192, among them
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # 6to4 relay anycast, deprecated
    "192.168.0.0/16",  # private use
    "198.18.0.0/15",  # benchmarking
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and limited broadcast
)
"""IPv4 addresses that are not public. 192.0.0.9 and 192.0.0.10, which lead to the nearest
gateway, are refused too."""

GLOBAL_UNICAST = "2000::/3"
"""All IPv6 addresses that may be public: loopback, local, mapped and multicast addresses
are outside of it."""

NOT_PUBLIC_IPV6 = (
    "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID and anycast addresses among them
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which embeds any IPv4 address
    "3fff::/20",  # documentation
)
"""IPv6 addresses within GLOBAL_UNICAST that are not public."""

NAT64 = "64:ff9b::/96"
"""Translated to the IPv4 address in the last 32 bits, which is what is judged."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet. Raises ValueError for what is not
    an address.

    It may have a zone, as in fe80::1%eth0.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return not _is_in(ip, NOT_PUBLIC_IPV4)
    if _is_in(ip, (NAT64,)):
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return _is_in(ip, (GLOBAL_UNICAST,)) and not _is_in(ip, NOT_PUBLIC_IPV6)


def _is_in(ip: Address, blocks: tuple[str, ...]) -> bool:
    return any(ip in ipaddress.ip_network(block) for block in blocks)
