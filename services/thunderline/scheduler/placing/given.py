"""A placement that somebody has written down for mlx.launch: checked against what is known, and never edited. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from thunderline.scheduler.placing import methods, rdma
from thunderline.scheduler.placing.dialling import describe
from thunderline.scheduler.placing.forming import Failed, formed, whole
from thunderline.scheduler.placing.grounds import Grounds, Method
from thunderline.scheduler.placing.hostfiles import matrix_problems
from thunderline.scheduler.placing.reasons import too_small
from thunderline.scheduler.placing.values import (
    Backend,
    Hostfile,
    Placement,
    Plan,
    Policy,
    Reason,
    Rejected,
    Strategy,
    Verdict,
    Wait,
    WaitFor,
)
from thunderline.scheduler.placing.verdict import is_impossible
from thunderline.scheduler.placing.wording import counted, listed

BACKENDS = {"ring": Backend.RING, "jaccl": Backend.JACCL, "jaccl-ring": Backend.JACCL, "nccl": Backend.NCCL}


def checked(grounds: Grounds, hostfile: Hostfile, unfit: Sequence[Rejected]) -> Plan:
    """PLACED exactly so, or every fault that it has: WAITING, as another node, link or cable may mend each; IMPOSSIBLE
    where its hosts would not do on any.

    Nobody waits for links that may still come: who has written it down has chosen, a VPN too.
    """
    order, problems = _order(grounds, hostfile)
    if problems:
        return _refused(grounds, order, [*problems, *(one.text for one in unfit)], unfit)
    problems = _pin_problems(grounds, order)
    if len(order) == 1 and methods.takes_one_node(grounds.policy):
        found = whole(grounds, order[0])
        problems += [] if isinstance(found, Placement) else [too_small(grounds)((order[0],))]
        if problems:
            return _refused(grounds, order, problems, unfit, replace(grounds.policy, strategy=Strategy.WHOLE))
        return _placed("whole", found, unfit)
    if len(order) == 1:
        return _refused(grounds, order, [*problems, "a group has two hosts at least"], unfit)
    backend = _backend(grounds, hostfile)
    possible = _methods(grounds, backend, len(order))
    problems += [possible] if isinstance(possible, str) else []
    problems += [why for number in order if (why := grounds.problem(number, backend))]
    if backend is Backend.RING:
        problems += _ring_faults(grounds, order, hostfile)
    elif backend is Backend.JACCL:
        problems += _rail_faults(grounds, order, hostfile)
    if backend is not Backend.RING:
        problems += _coordinator_faults(grounds, order, hostfile, backend)
    if problems or isinstance(possible, str):
        return _refused(grounds, order, problems, unfit, replace(grounds.policy, backend=backend))
    is_ring = hostfile.backend == "jaccl-ring" or None
    narrowed, failed = _narrowed(grounds, order, hostfile, backend), []
    for method in possible:
        found = formed(narrowed, order, method, is_ring, next(iter(hostfile.hosts[0].ips), ""))
        if isinstance(found, Placement):
            return _placed(f"{method.strategy.value} over {backend.value}", found, unfit)
        failed.append(f"{method.strategy.value}: {found.text}" if len(possible) > 1 else found.text)
    return _refused(grounds, order, failed, unfit, replace(grounds.policy, backend=backend))


def _placed(how: str, found: Placement | Failed, unfit: Sequence[Rejected]) -> Plan:
    assert isinstance(found, Placement)
    slow = f", SLOW: {'; '.join(found.slow)}" if found.slow else ""
    told = f"as the hostfile says: {how}{slow}"
    return Plan(Verdict.PLACED, told, replace(found, reasons=(told,)), tuple(unfit))


def _order(grounds: Grounds, hostfile: Hostfile) -> tuple[list[int], list[str]]:
    """The node of each host: by one of its addresses, else by name or id."""
    order: list[int] = []
    problems = []
    for rank, host in enumerate(hostfile.hosts):
        by_ip = [i for i, node in enumerate(grounds.nodes) if set(host.ips) & set(node.addresses)]
        # As ssh takes it: USER@NAME.
        word = host.ssh.rpartition("@")[2]
        by_name = [i for i, node in enumerate(grounds.nodes) if word and word in (node.id, node.name, *node.addresses)]
        found = sorted({*by_ip, *by_name})
        if len(found) == 1:
            order += found
        elif found:
            problems.append(f"host {rank} ({host.ssh}) may be {' or '.join(grounds.words[i] for i in found)}")
        else:
            problems.append(f"host {rank} ({host.ssh}) is no node that can take part")
    if len(set(order)) < len(order):
        problems.append("two of its hosts are one node")
    return order, problems


def _pin_problems(grounds: Grounds, order: Sequence[int]) -> list[str]:
    """What the operator asks for beside it."""
    policy, found = grounds.policy, []
    if missing := sorted(policy.nodes - {grounds.ids[i] for i in order}):
        words = [grounds.words[grounds.numbers[one]] if one in grounds.numbers else one for one in missing]
        found.append(f"{listed(words)} should take part, and is not in it")
    if len(order) < policy.node_count_min:
        wants = counted(policy.node_count_min, "node")
        found.append(f"{wants} at least are asked for, it has {counted(len(order), 'host')}")
    return found


def _backend(grounds: Grounds, hostfile: Hostfile) -> Backend:
    if grounds.policy.backend is not None:
        return grounds.policy.backend
    has_rails = any(host.rdma for host in hostfile.hosts)
    return BACKENDS.get(hostfile.backend, Backend.JACCL if has_rails else Backend.RING)


def _methods(grounds: Grounds, backend: Backend, size: int) -> list[Method] | str:
    """The best first: what they need a hostfile does not say. Or why there is none."""
    if grounds.policy.hostfile and BACKENDS.get(grounds.policy.hostfile.backend, backend) is not backend:
        return f"the hostfile is for {grounds.policy.hostfile.backend}, {backend.value} is asked for"
    strategies = [grounds.policy.strategy] if grounds.policy.strategy else list(Strategy)
    possible = [one for one in methods.PREFERENCE if one.backend is backend and one.strategy in strategies]
    problems = [_method_problem(grounds, one, size) for one in possible]
    fine = [one for one, problem in zip(possible, problems, strict=True) if not problem]
    return fine or "; ".join(dict.fromkeys(problems)) or methods.NEITHER


def _method_problem(grounds: Grounds, method: Method, size: int) -> str:
    against = methods.problem(method, grounds.model, grounds.policy)
    return against[1] if against else methods.sizes_problem(method, grounds.model, size)


def _ring_faults(grounds: Grounds, order: Sequence[int], hostfile: Hostfile) -> list[str]:
    """The first address of each host is the one that the host before it dials."""
    found = []
    for rank, number in enumerate(order):
        ips = hostfile.hosts[rank].ips
        if not ips:
            found.append(f"host {rank} has no address for the host before it")
            continue
        links = grounds.dialling.links.get(grounds.pair(order[rank - 1], number), [])
        link = next((one for one in links if one.address == ips[0]), None)
        if link is None:
            found.append(f"{ips[0]} cannot be dialled: {grounds.evidence(order[rank - 1], number)}")
        elif grounds.policy.requires_fast and (why := grounds.dialling.too_slow(link)):
            found.append(f"{describe(link)} is too slow: {why}")
    return found


def _rail_faults(grounds: Grounds, order: Sequence[int], hostfile: Hostfile) -> list[str]:
    devices = tuple(host.rdma for host in hostfile.hosts)
    if not all(devices):
        return ["it names no RDMA devices (`rdma`)"]
    as_mesh, as_ring = matrix_problems(devices, is_ring=False), matrix_problems(devices, is_ring=True)
    if hostfile.backend == "jaccl-ring" or as_mesh:
        if as_ring:
            return as_ring if hostfile.backend == "jaccl-ring" else as_mesh
        if hostfile.backend == "jaccl":
            # MLX would make a ring of it without a word.
            return as_mesh
    found = []
    for i, j in combinations(range(len(order)), 2):
        known = {
            (rdma.end_at(rail, grounds.ids[order[i]]).device, rdma.end_at(rail, grounds.ids[order[j]]).device)
            for rail in grounds.rails.between(*grounds.pair(order[i], order[j]))
        }
        for here, there in zip(devices[i][j], devices[j][i], strict=True):
            if (here, there) not in known:
                who = f"{here} of {grounds.words[order[i]]} and {there} of {grounds.words[order[j]]}"
                why = "" if known else f" ({grounds.rails.why_not(*grounds.pair(order[i], order[j]))})"
                found.append(f"no cable that can be used joins {who}{why}")
    return found


def _coordinator_faults(grounds: Grounds, order: Sequence[int], hostfile: Hostfile, backend: Backend) -> list[str]:
    if not grounds.needs_coordinator(order, backend):
        return []
    address = next(iter(hostfile.hosts[0].ips), "")
    deaf = [
        number
        for number in order[1:]
        if all(one.address != address for one in grounds.dialling.links.get(grounds.pair(number, order[0]), []))
    ]
    return [f"{address or 'no address'} of rank 0 cannot be dialled: {grounds.evidence(i, order[0])}" for i in deaf]


def _narrowed(grounds: Grounds, order: Sequence[int], hostfile: Hostfile, backend: Backend) -> Grounds:
    """As if there were no other links, or rails, than those that it names, in its order. NCCL finds its own links."""
    graph = grounds.situation.graph
    if backend is Backend.RING:
        named = {(grounds.ids[number], host.ips[0]) for number, host in zip(order, hostfile.hosts, strict=True)}
        graph = replace(graph, links=tuple(link for link in graph.links if (link.to_node, link.address) in named))
    if backend is Backend.JACCL:
        rails = [
            rail
            for i, j in combinations(range(len(order)), 2)
            for here in hostfile.hosts[i].rdma[j]
            for rail in grounds.rails.between(*grounds.pair(order[i], order[j]))
            if rdma.end_at(rail, grounds.ids[order[i]]).device == here
        ]
        graph = replace(graph, rails=tuple(rails))
    return Grounds(replace(grounds.situation, graph=graph), grounds.nodes, grounds.model, grounds.policy)


def _refused(
    grounds: Grounds,
    order: Sequence[int],
    problems: Sequence[str],
    unfit: Sequence[Rejected],
    wants: Policy | None = None,
) -> Plan:
    """`wants`: of its hosts, where all of them are known."""
    told = tuple(dict.fromkeys(problems))
    why = f"the hostfile does not do: {'; '.join(told)}"
    nodes = tuple(grounds.ids[i] for i in order)
    rejected = (*unfit, *(Rejected(nodes, Reason.HOSTFILE, one) for one in told))
    if wants is not None:
        members = [grounds.nodes[i] for i in order]
        if is_impossible(grounds.situation, members, grounds.model, replace(wants, nodes=frozenset(nodes))):
            return Plan(Verdict.IMPOSSIBLE, why, rejected=rejected)
    return Plan(Verdict.WAITING, why, rejected=rejected, waits=(Wait(WaitFor.LINKS, (), why),))
