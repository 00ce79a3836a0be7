"""Ctrl-C, a second `up`, a refused start: what a person at a terminal sees."""

from pathlib import Path

import psutil

from installation import Installation, end, free_base_port, until
from streams import four_unfinished


def test_ctrl_c_ends_everything_within_five_seconds(tmp_path: Path, shallow_folder: Path) -> None:
    up = Installation(tmp_path / "home")
    up.start("--model", str(shallow_folder))
    try:
        up.wait_ready()
        mine = set(up.processes())
        assert len(mine) >= 7
        assert up.interrupt() < 5
        assert not [pid for pid in mine if psutil.pid_exists(pid)]
    finally:
        end(up)


def test_ctrl_c_under_four_streams_ends_each_with_a_typed_error_and_everything_in_time(
    tmp_path: Path, shallow_folder: Path
) -> None:
    up = Installation(tmp_path / "home")
    up.start("--model", str(shallow_folder))
    try:
        up.wait_ready()
        streams = four_unfinished(up)
        mine = set(up.processes())
        assert up.interrupt() < 4, "clear of the five seconds that are promised"
        assert not [pid for pid in mine if psutil.pid_exists(pid)]
        for stream in streams:
            stream.join(5)
        assert [(stream.end, stream.error["code"]) for stream in streams] == [("typed error", "draining")] * 4
    finally:
        end(up)


def test_ctrl_c_while_the_model_loads_leaves_nothing(tmp_path: Path, demo_folder: Path) -> None:
    up = Installation(tmp_path / "home")
    up.start("--model", str(demo_folder))
    try:
        until("a rank", lambda: "rank" in up.processes().values(), 60)
        mine = set(up.processes())
        assert up.interrupt() < 5
        assert not [pid for pid in mine if psutil.pid_exists(pid)]
    finally:
        end(up)


def test_a_killed_up_takes_its_roles_along_and_the_next_one_adopts_its_ranks(
    tmp_path: Path, shallow_folder: Path
) -> None:
    up = Installation(tmp_path / "home")
    up.start("--model", str(shallow_folder))
    try:
        up.wait_ready()
        rank = up.pid("rank")
        assert up.process is not None
        up.process.kill()
        up.process.wait(5)
        until("no role of the home", lambda: set(up.processes().values()) == {"rank"}, 20)
        up.lines.clear()
        up.start()
        up.wait_ready()
        until("a good answer", up.answers, 20)
        assert up.pid("rank") == rank, "the model was loaded again"
    finally:
        end(up)


def test_the_ranks_of_a_killed_up_that_nobody_comes_back_for_end_themselves(
    tmp_path: Path, shallow_folder: Path
) -> None:
    up = Installation(tmp_path / "home", environment={"THUNDERLINE_LIMITS_RANK_WITHOUT_RUNNER_S": "2"})
    up.start("--model", str(shallow_folder))
    try:
        up.wait_ready()
        assert up.process is not None
        up.process.kill()
        up.process.wait(5)
        until("no process of the home", lambda: not up.processes(), 20)
    finally:
        end(up)


def test_up_lists_every_deployment_that_is_not_ready(tmp_path: Path, shallow_folder: Path) -> None:
    broken = tmp_path / "home" / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    up = Installation(tmp_path / "home")
    try:
        up.start("--model", str(shallow_folder))
        up.wait_ready()
        assert up.run("deploy", "broken").returncode == 1
        up.interrupt()
        up.lines.clear()
        up.start()
        up.wait_ready()
        line = until("the list", lambda: next((one for one in up.lines if one.startswith("not ready: ")), None), 10)
        assert line.startswith("not ready: broken is IMPOSSIBLE: ")
        assert not [one for one in up.lines if "epoch" in one]
    finally:
        end(up)


def test_a_second_up_on_the_same_home_says_so_in_one_line(fresh: Installation) -> None:
    second = Installation(fresh.home, base_port=free_base_port() + 1000)
    answer = second.run("up", timeout_s=20)
    assert answer.returncode == 1
    assert str(fresh.home) in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_second_up_on_the_same_ports_says_so_in_one_line(fresh: Installation, tmp_path: Path) -> None:
    second = Installation(tmp_path / "home", base_port=fresh.base_port)
    answer = second.run("up", timeout_s=20)
    assert answer.returncode == 1
    assert str(fresh.base_port) in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[gateway]\nprot = 9000\n")
    answer = Installation(tmp_path).run("gateway", timeout_s=20)
    assert answer.returncode == 2
    assert "'prot'" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_named_by_each_role(fresh: Installation, tmp_path: Path) -> None:
    for role in ("discovery", "topology", "scheduler", "runner", "gateway"):
        answer = Installation(tmp_path / role, base_port=fresh.base_port).run(role, timeout_s=20)
        assert answer.returncode == 1, (role, answer.stderr)
        last = answer.stderr.strip().splitlines()[-1]
        assert last.startswith(f"thunderline {role}: "), last
        assert str(fresh.base_port)[:-1] in last, last
