"""One released wheel of upstream against us: every pairing that both can do, in both roles, bytes verified. Prints a JSON
object: column to "ok", or to what that wheel lacks.

    matrix.py FOLDER        with the wheel's packages, and the folder `stub` beside them where it needs one

TE_HTTP, TE_ETCD: addresses of stores; TE_HTTP_TOKEN: of one that asks for the token "open sesame". TE_SIMVERBS: folder of the simulated libibverbs.
"""

import glob
import json
import os
import socket
import struct
import sys
import tempfile
import time

import shared_memory
from peers import Peer, expect, peer, wait_for_buffers
from transfer import GUARD, OFFSET, one, scattered

SIZES = [1, 4096, (1 << 20) + 3]
LENGTH = OFFSET + max(SIZES) + GUARD
# Longest time in which a v1 WRITE is applied after it is complete.
LATE = 20
DEADLINE = 30


def ask(segment, kind, body):
    """The reply of a handshake port to one message, without our engine."""
    host, port = segment.rsplit(":", 1)
    with socket.create_connection((host, int(port)), DEADLINE) as connection:
        text = bytes([kind]) + json.dumps(body).encode() + b"\n"
        connection.sendall(struct.pack("<Q", len(text)) + text)
        stream = connection.makefile("rb")
        (length,) = struct.unpack("<Q", stream.read(8))
        return json.loads(stream.read(length)[1:])


class Pair:
    """A running peer of each kind, with memory."""

    def __init__(self, upstream, both):
        self.ours, self.upstream, self.both = None, None, both
        try:
            # The second one to start finds the first one in the store.
            self.upstream = Peer("upstream", {**upstream, **both})
            self.ours = Peer("ours", both)
            self.ours.register(LENGTH)
            self.upstream.register(LENGTH)
        except BaseException:
            self.kill()
            raise

    def transfers(self, late=0):
        for initiator, target in ((self.ours, self.upstream), (self.upstream, self.ours)):
            for size in SIZES:
                one(initiator, target, size, late)
            scattered(initiator, target, late)

    def notifications(self):
        """To us and to them: with a transfer, and from us alone. Theirs come with a transfer only."""
        odd = "".join(map(chr, range(1, 128))) + 'é "quoted" \\ 漢'
        for sender, receiver in ((self.ours, self.upstream), (self.upstream, self.ours)):
            sent = [["first", "with a transfer"], ["second", odd], ["third", "x" * 100_000]]
            for message in sent:
                item = [[0, receiver.base, 64]]
                done = sender.transfer(op="write", segment=receiver.segment, items=item, notify=message)
                expect(done["ok"], f"WRITE with a notification: {done}", sender, receiver)
            if sender is self.ours:
                sender.notify(segment=receiver.segment, name="alone", message="")
                sent.append(["alone", ""])
            got, deadline = [], time.monotonic() + DEADLINE
            while len(got) < len(sent) and time.monotonic() < deadline:
                got += receiver.notifications()["messages"]
            expect(sorted(got) == sorted(sent), f"received {[m[0] for m in got]} or other texts", sender, receiver)

    def only_by_queue_pair(self, first):
        """Their notifications arrive over a connection that `first` has made, without the handshake port."""
        initiator, target = (self.ours, self.upstream) if first == "ours" else (self.upstream, self.ours)
        done = initiator.transfer(op="write", segment=target.segment, items=[[0, target.base, 64]])
        expect(done["ok"], f"WRITE: {done}", self.ours, self.upstream)
        # More than there are buffers for; the longest one fits just so.
        sent = [[f"{n}", "m" * n] for n in (0, 1, 40, 65_000)] + [[f"{n}", "漢"] for n in range(50)]
        for message in sent:
            items = [[0, self.ours.base, 64]]
            done = self.upstream.transfer(op="write", segment=self.ours.segment, items=items, notify=message)
            expect(done["ok"], f"WRITE with a notification: {done}", self.ours, self.upstream)
        got, deadline = [], time.monotonic() + DEADLINE
        while len(got) < len(sent) and time.monotonic() < deadline:
            got += self.ours.notifications()["messages"]
        expect(got == sent, f"received {[m[0] for m in got]} or other texts", self.ours, self.upstream)

    def moves_gid(self, control):
        """They find twice, after two failures each, that the GIDs do not work, move to others, and ask us to do the same."""
        try:
            with open(control, "w") as file:
                print("error sim0 4 RETRY_EXC_ERR", file=file)
            for size in SIZES:
                one(self.upstream, self.ours, size, 0)
            self.ours.wait_for("does not work for a peer; it gets fe:80", DEADLINE)
            one(self.ours, self.upstream, SIZES[-1], 0)
            # Who has not met them before finds them where they are now.
            with peer("ours", self.both, LENGTH) as newcomer:
                one(newcomer, self.upstream, SIZES[-1], 0)
                one(self.upstream, newcomer, SIZES[-1], 0)
        finally:
            os.remove(control)

    def moved_memory(self):
        """Who has opened a segment finds what its owner registers afterwards, at another place."""
        for initiator, target in ((self.ours, self.upstream), (self.upstream, self.ours)):
            for length in (2 * LENGTH, LENGTH):
                target.unregister()
                target.register(length)
                one(initiator, target, 4096, 0)

    def probes(self):
        """Theirs to us; ours to them. An older wheel has no probe, and closes when it is asked."""
        sent = self.upstream.probe(segment=self.ours.segment)["result"]
        answer = self.ours_probe()
        if sent is None and answer is None:
            return "no probe"
        expect(sent in (None, 0), f"their probe of us gave {sent}", self.ours, self.upstream)
        expect(answer in (None, {"status": "success"}), f"our probe of them got {answer}")
        return "ok" if sent == 0 else "answers only"

    def ours_probe(self):
        try:
            return ask(self.upstream.segment, 3, {})
        except (OSError, ValueError, struct.error):
            return None

    def close(self):
        self.ours.close()
        self.upstream.close()

    def kill(self):
        for started in (self.ours, self.upstream):
            if started:
                started.kill()


def paired(upstream, both, case):
    pair = Pair(upstream, both)
    try:
        result = case(pair)
        pair.close()
        return result or "ok"
    except BaseException:
        for started in (pair.ours, pair.upstream):
            print(started.log(), file=sys.stderr)
        raise
    finally:
        pair.kill()


def main(folder):
    stub = os.path.join(folder, "stub")
    upstream, result = {"PYTHONPATH": folder, "LD_LIBRARY_PATH": stub}, {}

    def over_tcp(pair):
        described = wait_for_buffers(pair.upstream.segment, DEADLINE)
        version = described.get("tcp_proto_version", 1)
        result["framing"] = f"v{version}"
        result["token"] = "none" if "metadata_version" not in described else ""
        pair.transfers(0 if version >= 2 else LATE)
        result["probe"] = pair.probes()
        result["notify"] = "ok"
        pair.notifications()

    result["tcp"] = paired(upstream, {}, over_tcp)
    late = 0 if result["framing"] != "v1" else LATE
    def over_shared_memory(pair):
        if ask(pair.upstream.segment, 1, {})["protocol"] != "shm":
            return "none"
        pair.ours.notify(segment=pair.upstream.segment, name="n", message="m")
        got = pair.upstream.notifications()["messages"]
        expect(got == [["n", "m"]], f"sent one, received {got}", pair.ours, pair.upstream)
        return "initiator"

    result["shm"] = paired({**upstream, "MC_FORCE_SHM": "1"}, {}, over_shared_memory)
    stores = {name: os.environ[f"TE_{name.upper()}"] for name in ("http", "etcd")}
    stored = {name: {"TE_STORE": url, "MC_TCP_BIND_ADDRESS": "127.0.0.1"} for name, url in stores.items()}
    if result["shm"] == "initiator":
        for both in ({}, stored["http"]):
            shared_memory.main(folder, both)
    for store, both in stored.items():
        result[store] = paired(upstream, both, lambda pair: pair.transfers(late))
    if not result["token"]:
        both = {**stored["http"], "TE_STORE": os.environ["TE_HTTP_TOKEN"], "MC_METADATA_HTTP_TOKEN": "open sesame"}
        result["token"] = paired(upstream, both, lambda pair: pair.transfers(late))

    nics = os.pathsep.join([os.environ["TE_SIMVERBS"], stub])
    rdma = {"TE_PROTOCOL": "rdma", "TE_DEVICES": "sim0", "SIMVERBS_DEVICES": "sim0", "SIMVERBS_QUIET": "1", "LD_LIBRARY_PATH": nics}
    registry = f"matrix-{os.getpid()}"
    rdma["SIMVERBS_SHM"] = registry

    def over_rdma(pair):
        pair.transfers()
        pair.notifications()
        pair.moved_memory()

    try:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as matrix:
            # Its discovery looks into /sys, where the simulated NIC is not.
            print(json.dumps({"cpu:0": [["sim0"], []]}), file=matrix, flush=True)
            upstream = {**upstream, **rdma, "MC_CUSTOM_TOPO_JSON": matrix.name}
            result["rdma"] = paired(upstream, rdma, over_rdma)
            result["rdma gid"] = "none"
            if result["token"] != "none":
                failing = {"SIMVERBS_CTL": matrix.name + ".nics", "SIMVERBS_RETRY_MS": "20"}
                result["rdma gid"] = paired({**upstream, **failing}, rdma, lambda pair: pair.moves_gid(failing["SIMVERBS_CTL"]))
            result["rdma notify"] = "none"
            if result["token"] != "none":
                # Nothing else brings theirs then; ours never come that way.
                theirs = {**upstream, "MC_RDMA_NOTIFY_OOB_FALLBACK": "0"}
                for first in ("ours", "upstream"):
                    case = lambda pair: pair.only_by_queue_pair(first)
                    result["rdma notify"] = paired(theirs, rdma, case)
            for store, both in stored.items():
                result[f"rdma {store}"] = paired(upstream, {**rdma, **both}, over_rdma)
    finally:
        for file in glob.glob(f"/dev/shm/*{registry}*"):
            os.remove(file)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
