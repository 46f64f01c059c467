"""Which IP addresses are taken for public: both of IANA's special-purpose registries,
block by block."""

import ipaddress
import socket

import pytest

from blip2cli.host.web.addresses import is_public

# Address block and "Globally Reachable" of the registries, in their order.
IPV4_REGISTRY = """
0.0.0.0/8 False
0.0.0.0/32 False
10.0.0.0/8 False
100.64.0.0/10 False
127.0.0.0/8 False
169.254.0.0/16 False
172.16.0.0/12 False
192.0.0.0/24 False
192.0.0.0/29 False
192.0.0.8/32 False
192.0.0.9/32 True
192.0.0.10/32 True
192.0.0.170/32 False
192.0.0.171/32 False
192.0.2.0/24 False
192.31.196.0/24 True
192.52.193.0/24 True
192.88.99.0/24 N/A
192.168.0.0/16 False
192.175.48.0/24 True
198.18.0.0/15 False
198.51.100.0/24 False
203.0.113.0/24 False
240.0.0.0/4 False
255.255.255.255/32 False
"""
IPV6_REGISTRY = """
::1/128 False
::/128 False
::ffff:0:0/96 False
64:ff9b::/96 True
64:ff9b:1::/48 False
100::/64 False
100:0:0:1::/64 False
2001::/23 False
2001::/32 N/A
2001:1::1/128 True
2001:1::2/128 True
2001:1::3/128 True
2001:2::/48 False
2001:3::/32 True
2001:4:112::/48 True
2001:10::/28 N/A
2001:20::/28 True
2001:30::/28 True
2001:db8::/32 False
2002::/16 N/A
2620:4f:8000::/48 True
3fff::/20 False
5f00::/16 False
fc00::/7 False
fe80::/10 False
"""
REFUSED_ALL_THE_SAME = [ipaddress.ip_network(block) for block in ("192.0.0.0/24", "2001::/23")]
"""Blocks of protocol assignments, which hold no web server although parts of them are
routed."""

NOT_IN_THE_REGISTRIES = "224.0.0.0/4 168.63.129.16/32 ::/96 ::ffff:0:0:0/96 fec0::/10 ff00::/8 4000::/3 200::/7".split()


def blocks() -> list[tuple[str, bool]]:
    """Every block with whether its addresses are taken for public."""
    listed = [line.split() for line in (IPV4_REGISTRY + IPV6_REGISTRY).split("\n") if line]
    public = {block: reachable == "True" and not within(block) for block, reachable in listed}
    del public["64:ff9b::/96"]  # judged by the IPv4 address that it holds
    return [*public.items(), *((block, False) for block in NOT_IN_THE_REGISTRIES)]


def within(block: str) -> bool:
    network = ipaddress.ip_network(block)
    return any(network.version == other.version and network.subnet_of(other) for other in REFUSED_ALL_THE_SAME)


@pytest.mark.parametrize(("block", "public"), blocks())
def test_a_block_is_judged_from_its_first_to_its_last_address(block: str, public: bool) -> None:
    network = ipaddress.ip_network(block)
    middle = network.network_address + network.num_addresses // 2
    for address in (network.network_address, middle, network.broadcast_address):
        assert is_public(str(address)) is public, address


@pytest.mark.parametrize(
    "address",
    "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 "
    "168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 "
    "192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 "
    "203.0.112.255 203.0.114.0 223.255.255.255 93.184.215.14 2000:: 2001:200:: 2001:db7:ffff:ffff:ffff:ffff:ffff:ffff "
    "2001:db9:: 2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2003:: 3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000:: "
    "2606:2800:21f:cb07:6820:80da:af6b:8b2c".split(),
)
def test_the_neighbours_of_those_blocks_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "168.63.129.16", "192.0.0.192"])
def test_an_address_that_embeds_a_private_one_is_refused(private: str) -> None:
    number = int(ipaddress.IPv4Address(private))
    forms = {
        "compatible": number,
        "mapped": 0xFFFF << 32 | number,
        "translated": 0xFFFF << 48 | number,
        "NAT64": int(ipaddress.IPv6Address("64:ff9b::")) | number,
        "local NAT64": int(ipaddress.IPv6Address("64:ff9b:1::")) | number,
        "6to4": 0x2002 << 112 | number << 80,
        "Teredo": 0x20010000 << 96 | (number ^ 0xFFFFFFFF),
    }
    for name, value in forms.items():
        assert not is_public(str(ipaddress.IPv6Address(value))), name


def test_nat64_leads_to_the_public_ipv4_address_that_it_holds() -> None:
    assert is_public("64:ff9b::5db8:d70e")


METADATA = (
    "169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 "
    "fd00:ec2::254 fd20:ce::254 fd00:c1::a9fe:a9fe fe80::a9fe:a9fe%eth0"
).split()
"""Of AWS, Alibaba Cloud, Oracle Cloud, Azure, Google Cloud and OpenStack."""


@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_of_clouds_is_refused(metadata: str) -> None:
    assert not is_public(metadata)


@pytest.mark.parametrize("written", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001", "::ffff:127.0.0.1"])
def test_addresses_written_otherwise_are_judged_as_they_are_connected_to(written: str) -> None:
    for *_, address in socket.getaddrinfo(written, 80, type=socket.SOCK_STREAM):
        assert not is_public(str(address[0]))
