"""A host's packet filter, by tc and classic BPF: needs only iproute2. Connections that are open are left alone."""

from ipaddress import IPv4Address

from lab.namespaces import ip

ETHERNET_BYTES = 14
IPV4, TCP = 0x0800, 6
SYN, SYN_OR_ACK = 0x02, 0x12
FRAGMENT = 0x1FFF
DROP, GO_ON = 2, 0xFFFFFFFF
# What a program is made of: BPF_LD | BPF_H | BPF_ABS and so on, as linux/bpf_common.h has them.
LOAD_HALF, LOAD_BYTE, LOAD_WORD, LOAD_HEADER_LENGTH, LOAD_BYTE_BEHIND = 40, 48, 32, 177, 80
AND, IF_EQUAL, IF_ANY, RETURN = 84, 21, 69, 6


def bytecode(source: str, has_ethernet: bool) -> str:
    """Drops what would open a TCP connection from this address, as `tc filter ... bpf bytecode` takes it."""
    at = ETHERNET_BYTES if has_ethernet else 0
    # Behind each test: where to go if it holds, and if not, by name.
    lines: list[tuple[int, str, str, int]] = [
        *([(LOAD_HALF, "", "", 12), (IF_EQUAL, "", "pass", IPV4)] if has_ethernet else []),
        (LOAD_BYTE, "", "", at),
        (AND, "", "", 0xF0),
        (IF_EQUAL, "", "pass", 0x40),
        (LOAD_BYTE, "", "", at + 9),
        (IF_EQUAL, "", "pass", TCP),
        (LOAD_WORD, "", "", at + 12),
        (IF_EQUAL, "", "pass", int(IPv4Address(source))),
        (LOAD_HALF, "", "", at + 6),
        (IF_ANY, "pass", "", FRAGMENT),
        (LOAD_HEADER_LENGTH, "", "", at),
        (LOAD_BYTE_BEHIND, "", "", at + 13),
        (AND, "", "", SYN_OR_ACK),
        (IF_EQUAL, "", "pass", SYN),
        (RETURN, "", "", DROP),
        (RETURN, "", "", GO_ON),
    ]
    end = len(lines) - 1
    jumps = [
        f"{code} {end - place - 1 if yes else 0} {end - place - 1 if no else 0} {value}"
        for place, (code, yes, no, value) in enumerate(lines)
    ]
    return f"{len(lines)},{','.join(jumps)}"


def block(namespace: str, interface: str, source: str, number: int) -> None:
    """What arrives at this interface. `number` names the rule, from 1 on. Raises LabError."""
    if "clsact" not in ip("qdisc", "show", "dev", interface, namespace=namespace, tool="tc"):
        ip("qdisc", "add", "dev", interface, "clsact", namespace=namespace, tool="tc")
    has_ethernet = "link/ether" in ip("link", "show", "dev", interface, namespace=namespace)
    program = ("bpf", "da", "bytecode", bytecode(source, has_ethernet))
    ip("filter", "add", "dev", interface, "ingress", "pref", str(number), *program, namespace=namespace, tool="tc")


def unblock(namespace: str, interface: str, number: int) -> None:
    """Raises LabError when there is no such rule."""
    ip("filter", "del", "dev", interface, "ingress", "pref", str(number), namespace=namespace, tool="tc")
