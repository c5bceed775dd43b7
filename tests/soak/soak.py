#!/usr/bin/env python3
"""An engine that moves verified bytes for a long time, to and from peers that are killed, stopped, restarted and closed at random,
through the C ABI. Run by scripts/soak.sh, which `make soak` calls.

    soak.py SECONDS SEED PROTOCOL         tcp, shm or rdma (over tests/simverbs)

What is wrong in the end: a byte that is not what its COMPLETED task says, a task that is not terminal in time, a peer that is never
reached again, an end that takes longer than two seconds, and descriptors, threads, memory or open verbs objects that grow.
"""

import collections
import ctypes
import os
import random
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))
import te  # noqa: E402

HALF = 1 << 20  # bytes of a peer that are read; as many behind them are written
PEERS = 3
# What the simulated libibverbs counts.
VERBS = ("queue_pairs", "completion_queues", "memory_regions")
# A few connections and buffers come and go; queue pairs up to what MC_MAX_EP_PER_CTX allows.
MOST_GROWN = {"fds": 24, "threads": 8, "rss_kib": 32 << 10, "queue_pairs": 64, "completion_queues": 0, "memory_regions": 8}
MOST = 16  # requests of a batch
# Far longer than all deadlines of a task together, with the settings below.
TERMINAL_MS = 60_000
# Far longer than the pauses after failures.
REACHED = 20
SETTINGS = {
    "MC_TCP_STATUS_TIMEOUT_SEC": "2",
    "MC_TCP_LIVENESS_SEC": "1",
    "MC_HANDSHAKE_CONNECT_TIMEOUT": "2",
    "MC_HANDSHAKE_TIMEOUT": "3",
    # Queue pairs to peers that are gone go when there is no room for others, so growth ends soon.
    "MC_MAX_EP_PER_CTX": "32",
    "MC_LOG_LEVEL": "ERROR",
}


def pattern(nonce, offset, length):
    """The bytes of a peer's first half; each start of a peer has others."""
    row = bytes((nonce * 7 + i * 31) & 0xFF for i in range(256))
    first = offset % 256
    return (row * (length // 256 + 2))[first : first + length]


def serve(protocol, nonce):
    """A peer: says where it is, and lives until its input ends."""
    engine = te.Engine(protocol, devices="sim0" if protocol == "rdma" else "")
    memory = ctypes.create_string_buffer(2 * HALF)
    ctypes.memmove(memory, pattern(nonce, 0, HALF), HALF)
    engine.register(ctypes.addressof(memory), 2 * HALF)
    print(engine.segment, ctypes.addressof(memory), flush=True)
    sys.stdin.read()
    engine.destroy()


class Peer:
    def __init__(self, protocol, nonce):
        self.nonce = nonce
        command = [sys.executable, os.path.abspath(__file__), "--peer", protocol, str(nonce)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.child.stdout.readline().split()
        assert len(line) == 2, f"peer {nonce} did not start"
        self.segment, self.base = line[0], int(line[1])
        self.stopped = False
        # What is known of the second half: bytes that a COMPLETED WRITE put there, by offset.
        self.written = {}

    def signal(self, number):
        self.child.send_signal(number)

    def end(self, orderly):
        if self.stopped:
            self.signal(signal.SIGCONT)
        if orderly:
            self.child.stdin.close()
        else:
            self.child.kill()
        self.child.wait(30)
        self.child.stdout.close()
        if not orderly:
            self.child.stdin.close()


class Soak:
    def __init__(self, protocol, seed):
        self.random, self.protocol = random.Random(seed), protocol
        self.engine = te.Engine(protocol, devices="sim0" if protocol == "rdma" else "")
        self.verbs = ctypes.CDLL("libibverbs.so.1") if protocol == "rdma" else None
        self.memory = ctypes.create_string_buffer(MOST * 65536)
        self.base = ctypes.addressof(self.memory)
        self.engine.register(self.base, len(self.memory))
        self.nonces = 0
        self.peers = [self.start() for _ in range(PEERS)]
        self.counts = collections.Counter()

    def start(self):
        self.nonces += 1
        return Peer(self.protocol, self.nonces)

    def transfer(self, peer, opcode):
        """One batch; `True` if all of it was COMPLETED, and then its bytes are checked."""
        try:
            segment = self.engine.open(peer.segment)
        except te.TeError:
            self.counts["not opened"] += 1
            return False
        count = self.random.randint(1, MOST)
        length = self.random.choice([8, 4096, 65536])
        offsets = [self.random.randrange(HALF // length) * length for _ in range(count)]
        if opcode == te.WRITE:
            offsets = sorted(set(offsets))
        fills = [self.random.randrange(256) for _ in offsets]
        items = []
        for number, offset in enumerate(offsets):
            local = self.base + number * 65536
            ctypes.memset(local, fills[number], length)
            items.append((local, peer.base + offset + (HALF if opcode == te.WRITE else 0), length))
        batch = self.engine.allocate(len(items))
        submitted = self.engine.submit(batch, opcode, segment, items)
        if submitted < 0:
            self.counts["refused"] += 1
            assert self.engine.free(batch) == 0, "a refused batch cannot be freed"
            self.engine.close(segment)
            return False
        waited = self.engine.wait(batch, TERMINAL_MS)
        assert waited == 0, f"a batch is not terminal after {TERMINAL_MS} ms: {waited}"
        good = True
        for number, offset in enumerate(offsets):
            _, status, _ = self.engine.status(batch, number)
            if status != te.COMPLETED:
                good = False
                self.counts["FAILED"] += 1
                if opcode == te.WRITE:
                    peer.written.pop((offset, length), None)
                continue
            self.counts["COMPLETED"] += 1
            if opcode == te.READ:
                found = self.memory.raw[number * 65536 : number * 65536 + length]
                assert found == pattern(peer.nonce, offset, length), f"wrong bytes of peer {peer.nonce} at {offset}"
            else:
                # Ranges of other lengths overlap it.
                overlaps = [key for key in peer.written if key[0] < offset + length and offset < key[0] + key[1]]
                for key in overlaps:
                    del peer.written[key]
                peer.written[(offset, length)] = fills[number]
        assert self.engine.free(batch) == 0, "a batch that has ended cannot be freed"
        self.engine.close(segment)
        return good

    def look_back(self, peer):
        """What was written is read again."""
        if not peer.written:
            return
        (offset, length), fill = self.random.choice(sorted(peer.written.items()))
        segment = self.engine.open(peer.segment)
        batch = self.engine.allocate(1)
        if self.engine.submit(batch, te.READ, segment, [(self.base, peer.base + HALF + offset, length)]) == 0:
            assert self.engine.wait(batch, TERMINAL_MS) == 0, "a READ is not terminal"
            if self.engine.status(batch, 0)[1] == te.COMPLETED:
                self.counts["looked back"] += 1
                assert self.memory.raw[:length] == bytes([fill]) * length, f"a COMPLETED WRITE at {offset} is not there"
        assert self.engine.free(batch) == 0
        self.engine.close(segment)

    def step(self):
        place = self.random.randrange(PEERS)
        peer = self.peers[place]
        what = self.random.choices(["read", "write", "look", "kill", "end", "stop", "region"], [30, 30, 10, 1, 1, 2, 3])[0]
        self.counts[what] += 1
        if what == "read":
            self.transfer(peer, te.READ)
        elif what == "write":
            self.transfer(peer, te.WRITE)
        elif what == "look" and not peer.stopped:
            self.look_back(peer)
        elif what in ("kill", "end"):
            peer.end(what == "end")
            self.peers[place] = self.start()
        elif what == "stop":
            peer.signal(signal.SIGSTOP)
            self.transfer(peer, self.random.choice([te.READ, te.WRITE]))
            # What was under way when it stopped may come in now, whatever became of its tasks.
            peer.written.clear()
            peer.signal(signal.SIGCONT)
            self.reach(peer)
        elif what == "region":
            more = ctypes.create_string_buffer(1 << 16)
            self.engine.register(ctypes.addressof(more), len(more))
            self.engine.unregister(ctypes.addressof(more))

    def reach(self, peer):
        """After a fault the peer is reached again soon. Each try may meet what is left of the fault."""
        deadline = time.monotonic() + REACHED
        while not self.transfer(peer, te.READ):
            assert time.monotonic() < deadline, f"peer {peer.nonce} is not reached any more"

    def usage(self):
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        usage = {"fds": len(os.listdir("/proc/self/fd")), "threads": int(status["Threads"]), "rss_kib": int(status["VmRSS"].split()[0])}
        if self.verbs:
            usage |= {name: self.verbs.simverbs_open(kind) for kind, name in enumerate(VERBS)}
        return usage


def slope(samples, key):
    """Growth per hour, by least squares over the second half of the samples: in the first one caches fill."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0
    times, values = [s["at"] / 3600 for s in half], [s[key] for s in half]
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values)) / spread if spread else 0.0


def main(seconds, seed, protocol):
    os.environ.update(SETTINGS)
    if protocol == "shm":
        os.environ["MC_SAME_HOST"] = "1"
    soak = Soak("tcp" if protocol == "shm" else protocol, seed)
    begin, samples = time.monotonic(), []
    while (now := time.monotonic() - begin) < seconds:
        soak.step()
        if not samples or now - samples[-1]["at"] >= seconds / 40:
            samples.append({"at": now, **soak.usage()})
    for peer in soak.peers:
        soak.reach(peer)
        peer.end(True)
    samples.append({"at": time.monotonic() - begin, **soak.usage()})
    ended = time.monotonic()
    soak.engine.destroy()
    ended = time.monotonic() - ended
    print(f"{protocol}, seed {seed}, {seconds} s: {dict(soak.counts)}; destroyed in {ended:.2f} s")
    bad = ended > 3
    for key, most in MOST_GROWN.items():
        if key not in samples[0]:
            continue
        middle, last = samples[len(samples) // 2][key], samples[-1][key]
        grown = last - middle > most
        bad |= grown
        print(f"  {key}: {samples[0][key]} at the beginning, {middle} in the middle, {last} in the end, {slope(samples, key):+.0f} per hour{'  GROWS' if grown else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1] == "--peer":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
