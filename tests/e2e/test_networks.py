"""Device VMs that are networks, as the examples declare them: judged by the clients' own ping, DHCP and DNS programs,
by nft's counters, and by a host that is reached through NAT."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from stage import Shell, Stage, run, shell_port
from stage_collection import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

BOOT = "    boot: {guestImage: client}\n"
HOST = "10.77.0.1"
MAIL, WEB, DIARY = 25, 8025, 8026


@pytest.fixture(scope="module", autouse=True)
def network_image() -> None:
    """The image of networks, built or found."""
    subprocess.run([sys.executable, "-m", "devicevm.cli", "image", "build", "net"], check=True, timeout=900)


def manifest(stage: Stage, name: str, *changes: tuple[str, str]) -> Path:
    """An example with a shell in each client, and with words in it replaced."""
    text = (REPO / "examples" / f"{name}.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    client = ""
    lines = []
    for line in text.splitlines(keepends=True):
        found = re.fullmatch(r"metadata: \{name: (\w+)\}\n", line)
        client = found[1] if found else client
        lines.append(line)
        if line == BOOT:
            lines.append(f'    domainXML: "{shell_port(stage.folder / f"{client}.shell")}"\n')
    path = stage.folder / f"{name}.yaml"
    path.write_text("".join(lines))
    return path


def lease(shell: Shell) -> str:
    """The address that DHCP gives to a client, which its own kernel then has."""
    said = shell.run("ip link set eth0 up; udhcpc -i eth0 -n -q -T 1 -t 30")
    (address,) = re.findall(r"lease of ([0-9.]+) obtained", said)
    assert f"inet {address}/24" in shell.run("ip address show dev eth0")
    return str(address)


def reaches(shell: Shell, target: str) -> bool:
    return " 0% packet loss" in shell.run(f"ping -c 2 -i 0.2 -W 2 {target} || true")


def eventually(what: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def counted(stage: Stage, device_vm: str, comment: str) -> int:
    """How many packets nft has last counted at the rule with that comment; the device VM tells it in its log."""
    log = stage.devicevm("logs", device_vm).stdout
    found = re.findall(rf'counter packets (\d+) bytes \d+ \w+ comment "{comment}"', log)
    return int(found[-1]) if found else 0


COUNTER = (
    "      domain: lab",
    "      rules: |\n"
    "        table bridge seen {\n"
    "          chain forward {\n"
    "            type filter hook forward priority 0\n"
    '            iifname "link-here" counter accept comment "from the host"\n'
    "          }\n"
    "        }\n"
    "      domain: lab",
)


def live(stage: Stage, *paths: Path) -> None:
    """Apply with --prune; nobody on the network feels it."""
    steps = stage.json("plan", "--prune", *paths)["steps"]
    (step,) = [step for step in steps if step["kind"] == "device-vm"]
    assert (step["id"], step["effect"]) == ("update/device-vm/lab", "live")
    assert not [step for step in steps if step["name"] == "web" or "web" in str(step.get("felt"))]
    stage.devicevm("apply", "--prune", *paths)


@contextlib.contextmanager
def no_ping_is_lost(shell: Shell, target: str) -> Iterator[None]:
    """A client pings all the while."""
    shell.run(f"ping -i 0.2 {target} >/tmp/ping 2>&1 & echo $! >/tmp/pid; sleep 0.5")
    yield
    said = shell.run("kill -INT $(cat /tmp/pid); sleep 0.3; cat /tmp/ping")
    answered = [int(number) for number in re.findall(r"seq=(\d+) ttl", said)]
    sent = re.search(r"(\d+) packets transmitted", said)
    # The last one may still be on its way.
    assert sent and answered == list(range(len(answered))) and len(answered) >= max(int(sent[1]) - 1, 10), said


def test_clients_and_the_host_come_to_a_switch_and_leave_it_while_it_runs(stage: Stage) -> None:
    nic = ("class: net, parameters", "class: net, frontend: e1000e, parameters")
    alone = manifest(stage, "net-switch", nic)
    everything = alone.read_text()
    alone.write_text("---".join(everything.split("---")[:2]))
    stage.devicevm("apply", alone)
    network = stage.process("lab")
    web = Shell(stage.folder / "web.shell")
    assert lease(web).startswith("192.168.7.1")

    name = f"dvm{os.getpid()}"
    host = stage.folder / "net-host.yaml"
    host.write_text((REPO / "examples" / "net-host.yaml").read_text().replace("lab0", name))
    both = stage.folder / "both.yaml"
    both.write_text(everything.replace(*COUNTER))
    with no_ping_is_lost(web, "192.168.7.1"):
        live(stage, both, host)
        assert stage.json("plan", both, host).get("steps", []) == []
        db = Shell(stage.folder / "db.shell")
        assert lease(db) == "192.168.7.20"
        assert reaches(web, "db.lab.internal") and reaches(db, "web")
        assert "192.168.7.9" in web.run("nslookup printer.lab.internal 192.168.7.1 || true")
        # The host's own ping, out of its tap.
        assert " 0% packet loss" in run("ping", "-c", "5", "-i", "0.2", "-I", name, "192.168.7.20")
        assert eventually(lambda: counted(stage, "lab", "from the host") >= 5)
        assert {item["state"] for item in stage.json("status")["devices"]} == {"ready"}
    assert stage.process("lab") == network

    # While they run they are parted, and the device VM itself stays in reach.
    both.write_text(both.read_text().replace("      domain: lab", "      isolate: true\n      domain: lab"))
    stage.devicevm("apply", both, host)
    assert not reaches(web, "192.168.7.20") and reaches(web, "192.168.7.1")
    assert eventually(lambda: counted(stage, "lab", "isolate") >= 2)
    # Another client comes in the place of one that leaves without a word: its name is new, and the address is the same.
    heir = stage.folder / "heir.yaml"
    heir.write_text(everything.replace("name: db}", "name: heir}").replace("db.shell", "heir.shell"))
    with no_ping_is_lost(web, "192.168.7.1"):
        live(stage, heir)
        successor = Shell(stage.folder / "heir.shell")
        assert lease(successor) == "192.168.7.20"
        # Its question who has web's address tells web whose this one is now.
        assert reaches(successor, "web") and reaches(web, "heir.lab.internal")
        assert "192.168.7.20" not in web.run("nslookup db.lab.internal 192.168.7.1 || true")
    assert not Path("/sys/class/net", name).exists() and stage.parts() == []
    assert stage.process("lab") == network
    stage.devicevm("destroy", "--yes", "--owner", "default")


@contextlib.contextmanager
def tap() -> Iterator[str]:
    """A tap of the host with an address of its own."""
    name = f"dvm{os.getpid()}"
    subprocess.run(["ip", "tuntap", "add", "mode", "tap", "name", name], check=True)
    try:
        subprocess.run(["ip", "address", "add", f"{HOST}/24", "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@contextlib.contextmanager
def served(port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Somebody listens at that port of the host."""
    with socket.create_server((HOST, port)) as server:

        def run() -> None:
            with contextlib.suppress(OSError):
                serve(server)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def greet(server: socket.socket) -> None:
    """Whoever comes is told from where."""
    while True:
        peer, address = server.accept()
        with peer:
            peer.sendall(f"you are {address[0]}\n".encode())


def collect(server: socket.socket, said: bytearray) -> None:
    """What the first who comes says, as far as it has come."""
    with server.accept()[0] as peer:
        while data := peer.recv(65536):
            said.extend(data)


def kill_and_apply(stage: Stage, path: Path) -> None:
    """Nobody asks the clients, and they go on."""
    stage.kill("gateway")
    steps = {step["id"]: step["effect"] for step in stage.json("plan", path)["steps"]}
    assert steps == {"start/device-vm/gateway": "reconnect"}
    stage.devicevm("apply", path)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_a_router_with_nat_and_a_firewall_that_is_killed_while_its_client_runs(stage: Stage, kills: int) -> None:
    diary = bytearray()
    with tap() as name, served(MAIL, greet), served(WEB, greet), served(DIARY, partial(collect, said=diary)):
        path = manifest(stage, "net-router", ("tap: lab0", f"tap: {name}"))
        stage.devicevm("apply", path)
        inside = Shell(stage.folder / "inside.shell")
        lease(inside)
        assert reaches(inside, HOST)
        # The host sees the router, not the client.
        assert inside.run(f"nc -w 5 {HOST} {WEB} </dev/null") == "you are 10.77.0.2\n"
        assert "timed out" in inside.run(f"nc -w 2 {HOST} {MAIL} </dev/null || true")
        assert eventually(lambda: counted(stage, "gateway", "no mail") >= 1)

        # A rule that nft does not know: its own words, and the network goes on as it was.
        wrong = manifest(stage, "net-router", ("tap: lab0", f"tap: {name}"), ("tcp dport 25", "tcp dprot 25"))
        failed = stage.devicevm("apply", wrong, ok=False)
        assert failed.returncode == 1 and re.search(r"own:4:.*Error: syntax error", failed.stderr)
        path = manifest(stage, "net-router", ("tap: lab0", f"tap: {name}"))
        assert stage.devicevm("apply", path).stdout == "No changes.\n"
        assert reaches(inside, HOST)

        # One connection, written to all the time: what is sent again while nobody forwards it comes once, in its order.
        inside.run(
            f"(i=0; while [ ! -e /tmp/enough ]; do echo $i; i=$((i + 1)); sleep 0.1; done; echo $i >/tmp/last) | "
            f"nc {HOST} {DIARY} >/dev/null 2>&1 &"
        )
        assert eventually(lambda: len(diary) > 20)
        for _number in range(kills):
            kill_and_apply(stage, path)
            assert reaches(inside, HOST)
            # TCP waits twice as long each time before it sends again; a connection that has ended by then is not known.
            length = len(diary)
            assert eventually(lambda length=length: len(diary) > length + 20, 120)
        inside.run("touch /tmp/enough")
        last = int(inside.run("until [ -s /tmp/last ]; do sleep 0.1; done; cat /tmp/last"))
        assert eventually(lambda: len(diary.split()) >= last, 60)
        assert bytes(diary).split() == [b"%d" % number for number in range(last)]
        assert {item["state"] for item in stage.json("status")["devices"]} == {"ready"}
        stage.devicevm("destroy", "--yes", "--owner", "default")
