import signal, time, json
from lab.network import Lab
from lab.nodes import Cluster
from lab.test_finding import until_all_know_each_other

def test_it(net: Lab, cluster: Cluster) -> None:
    hosts = [net.host(n) for n in "ab"]
    net.lan(*hosts)
    a, b = nodes = [cluster.node(h) for h in hosts]
    cluster.start()
    until_all_know_each_other(nodes)
    print(a.run("nodes").stdout)
    p = b.processes["discovery"]
    t = time.monotonic(); p.send_signal(signal.SIGSTOP); time.sleep(10); p.send_signal(signal.SIGCONT)
    seen = []
    while time.monotonic() - t < 17:
        r = b.roster(); s = (r.complete, sorted((m.state, m.problem) for m in r.members))
        if not seen or seen[-1][1] != s: seen.append((round(time.monotonic() - t, 2), s))
        time.sleep(0.05)
    print(*seen, sep="\n")
    for n in nodes:
        with open(f"/proc/{n.processes['discovery'].pid}/stat") as f: s = f.read().split()
        print("cpu s", (int(s[13]) + int(s[14])) / 100)
    import psutil
    ps = [psutil.Process(n.processes["discovery"].pid) for n in nodes]
    c0 = [sum(x.cpu_times()[:2]) for x in ps]; time.sleep(10)
    print("cpu % over 10 s", [round((sum(x.cpu_times()[:2]) - c) * 10, 2) for x, c in zip(ps, c0)], [x.memory_info().rss >> 20 for x in ps])
    t = time.monotonic(); p.send_signal(signal.SIGTERM); print("exit", p.wait(20), time.monotonic() - t)
    print(a.log("discovery")[-1500:]); print(b.log("discovery")[-2500:])
    assert 0
