"""The addresses that may be called on behalf of callers."""

import ipaddress

import pytest
from animatediff_v2v.api.net.addresses import AddressRefused, check_literal, is_public
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

PUBLIC = ["8.8.8.8", "151.101.1.6", "2a00:1450:4001:829::200e", "2606:4700::6810:84e5"]

NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12::1"],
    "link-local": ["169.254.1.1", "169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "unspecified": ["0.0.0.0", "::"],
    "this network": ["0.1.2.3"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "198.18.0.1", "192.0.2.1"],
    "site-local": ["fec0::1"],
    "documentation": ["2001:db8::1", "203.0.113.9", "198.51.100.9"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8"],
    "IPv4-compatible": ["::127.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::10.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "ISATAP": ["2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:10.0.0.1"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, each) for kind, table in NOT_PUBLIC.items() for each in table]
)
def test_not_public(kind, address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_disguise_makes_an_address_public(address):
    number = int(address)
    for disguise in (0, 0xFFFF << 32, 0xFFFF << 48, 0x64FF9B << 96, 0x2002 << 112 | number << 80):
        assert not is_public(str(ipaddress.IPv6Address(disguise | number)))


ADDRESSES = [
    ("127.0.0.1", "127.0.0.1 is not on the public internet."),
    ("[::1]", "::1 is not on the public internet."),
    (
        "[::ffff:7f00:1]",
        "::ffff:7f00:1 is not on the public internet.",
    ),
    ("①②⑦.0.0.1", "127.0.0.1 is not on the public internet."),
    *(
        (host, f"{host} is not an address in the usual notation.")
        for host in (
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "0",
            "8.8.8",
            "localhost.1",
        )
    ),
]


@pytest.mark.parametrize(("host", "sentence"), ADDRESSES)
def test_hosts_written_as_addresses(host, sentence):
    with pytest.raises(AddressRefused) as error:
        check_literal(URL(f"http://{host}/x"))
    assert str(error.value) == sentence


@pytest.mark.parametrize("host", ["8.8.8.8", "[2a00:1450::200e]", "h.test", "1.h", "0x1.test"])
def test_hosts_that_may_be_called_or_looked_up(host):
    check_literal(URL(f"http://{host}/x"))
