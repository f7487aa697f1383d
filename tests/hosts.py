"""Real hosts on one machine: network namespaces on a switch. Where that is not permitted, addresses of loopback."""

import os
import secrets
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_SNIFFER = """
import select, signal, socket, struct, sys, time
taken = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # 3: every protocol, both directions
taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**26)
taken.bind((sys.argv[1], 0))
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(time.time() + 1))  # one second for what is on its way
with open(sys.argv[2], "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 2**18, 1))  # pcap, Ethernet
    print("ready", flush=True)
    while not over or time.time() < over[0]:
        if select.select([taken], [], [], 0.1)[0]:
            frame, now = taken.recv(2**18), time.time()
            file.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(frame), len(frame)) + frame)
"""


@dataclass
class Host:
    """A machine with one network card. ``namespace`` is None for a stand-in on loopback."""

    address: str
    namespace: str | None = None
    port_on_switch: tuple[str, str] | None = None  # (namespace of the switch, its end of the cable)
    _started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def interface(self) -> str:
        """The name of the network card."""
        return "lo" if self.namespace is None else "eth0"

    def command(self, arguments: Sequence[object]) -> list[str]:
        """What runs ``arguments`` on this host."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return [*inside, *map(str, arguments)]

    def run(self, arguments: Sequence[object], **options) -> subprocess.CompletedProcess:
        """``subprocess.run`` on this host."""
        return subprocess.run(self.command(arguments), **options)

    def popen(self, arguments: Sequence[object], **options) -> subprocess.Popen:
        """``subprocess.Popen`` on this host; the process is killed at the latest when the hosts are taken down."""
        process = subprocess.Popen(self.command(arguments), **options)
        self._started.append(process)
        return process

    @contextmanager
    def running(self, arguments: Sequence[object], **options) -> Iterator[subprocess.Popen]:
        """The same, killed when the block ends; ``with popen()`` would wait for it instead."""
        with self.popen(arguments, **options) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Lose every packet to and from this host until the block ends; nobody is told. Isolated hosts only."""
        assert self.port_on_switch, "a stand-in on loopback has no cable to pull"
        switch, cable = self.port_on_switch
        _ip("-n", switch, "link", "set", cable, "nomaster")
        try:
            yield
        finally:
            _ip("-n", switch, "link", "set", cable, "master", "switch")

    @contextmanager
    def link_down(self) -> Iterator[None]:
        """Switch the network card off until the block ends: programs on this host see errors. Isolated hosts only."""
        assert self.namespace, "a stand-in on loopback has no card to switch off"
        _ip("-n", self.namespace, "link", "set", "eth0", "down")
        try:
            yield
        finally:
            _ip("-n", self.namespace, "link", "set", "eth0", "up")

    @contextmanager
    def sniffing(self, path: Path) -> Iterator[None]:
        """Save every frame that passes this host's card to a pcap file."""
        called = [sys.executable, "-c", _SNIFFER, self.interface, path]
        with self.popen(called, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout.readline() == "ready\n", "no raw socket: not root?"
                yield
            finally:
                process.terminate()  # it saves what it has seen
                process.wait(10)

    def end(self) -> None:
        """Kill what was started here and what that has started."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                pipe.close()
        if self.namespace:
            for number in _ip("netns", "pids", self.namespace, check=False).stdout.split():
                os.kill(int(number), signal.SIGKILL)


@dataclass(frozen=True)
class Hosts:
    """Some hosts that reach one another. ``isolated``: each has a network of its own and cannot reach the world."""

    each: tuple[Host, ...]
    isolated: bool

    def __getitem__(self, index: int) -> Host:
        return self.each[index]


def can_isolate() -> bool:
    """Whether this process may make network namespaces."""
    name = f"fr{secrets.token_hex(4)}"
    try:
        made = _ip("netns", "add", name, check=False).returncode == 0
        usable = made and _ip("netns", "exec", name, "true", check=False).returncode == 0
        usable = usable and _ip("-n", name, "link", "add", "switch", "type", "bridge", check=False).returncode == 0
        if made:
            _ip("netns", "del", name)
    except OSError:  # no such program
        return False
    return usable


@contextmanager
def running_hosts(count: int, *, isolate: bool | None = None) -> Iterator[Hosts]:
    """Make ``count`` hosts on one switch; whatever happens, nothing of them is left afterwards.

    Args:
        count: how many, 1 to 200.
        isolate: False stays on loopback; None isolates where that is permitted.
    """
    if isolate is False or not can_isolate():
        hosts = [Host(f"127.0.0.{index + 2}") for index in range(count)]
        with ExitStack() as stack:
            for host in hosts:
                stack.callback(host.end)
            yield Hosts(tuple(hosts), isolated=False)
        return
    unique = f"fr{secrets.token_hex(4)}"
    with ExitStack() as stack:
        switch = _namespace(f"{unique}s", stack)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        yield Hosts(tuple(_plugged_in(f"{unique}h{i}", i, switch, stack) for i in range(count)), isolated=True)


def frames(path: Path) -> list[bytes]:
    """The frames of a file that ``sniffing`` wrote."""
    data, place, found = path.read_bytes(), 24, []
    while place < len(data):
        length = struct.unpack_from("<I", data, place + 8)[0]
        found.append(data[place + 16 : place + 16 + length])
        place += 16 + length
    return found


def tcp_streams(path: Path) -> dict[tuple[str, int, str, int], bytes]:
    """What each side of each TCP connection said, by (source, its port, target, its port); IPv4, as captured."""
    streams: dict[tuple[str, int, str, int], bytearray] = {}
    for frame in frames(path):
        if frame[12:14] != b"\x08\x00" or frame[23] != 6:
            continue
        segment = frame[14 + (frame[14] & 15) * 4 : 14 + int.from_bytes(frame[16:18])]
        source, target = (".".join(map(str, frame[at : at + 4])) for at in (26, 30))
        from_port, to_port = struct.unpack_from(">HH", segment)
        said = streams.setdefault((source, from_port, target, to_port), bytearray())
        said += segment[(segment[12] >> 4) * 4 :]
    return {key: bytes(said) for key, said in streams.items()}


def _plugged_in(name: str, index: int, switch: str, stack: ExitStack) -> Host:
    host = Host(f"10.77.0.{index + 1}", _namespace(name, stack), (switch, f"port{index}"))
    stack.callback(host.end)
    cable = ("type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("-n", switch, "link", "add", f"port{index}", *cable)
    _ip("-n", switch, "link", "set", f"port{index}", "master", "switch", "up")
    _ip("-n", name, "address", "add", f"{host.address}/24", "dev", "eth0")
    for card in ("eth0", "lo"):
        _ip("-n", name, "link", "set", card, "up")
    return host


def _namespace(name: str, stack: ExitStack) -> str:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "del", name)
    return name


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done
