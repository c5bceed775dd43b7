"""Notifications: with a transfer, and for our engine also on their own.

    notify.py SENDER RECEIVER        each ours or upstream
"""

import sys
import time

from peers import expect, peer

LENGTH = 1 << 16
CONTROL_AND_TEXT = "".join(map(chr, range(1, 128))) + 'é "quoted" \\ 漢'


def main(sender_kind, receiver_kind):
    with peer(receiver_kind, length=LENGTH) as receiver, peer(sender_kind, length=LENGTH) as sender:
        expect(receiver.notifications()["messages"] == [], "messages before any was sent")

        sent = [["first", "with a transfer"], ["second", CONTROL_AND_TEXT], ["third", "x" * 200_000]]
        for message in sent:
            done = sender.transfer(op="write", segment=receiver.segment, items=[[0, receiver.base, 64]], notify=message)
            expect(done["ok"], f"WRITE with notification {message[0]}: {done}", sender, receiver)
        # Our engine sends them in the background.
        got, deadline = [], time.monotonic() + 30
        while len(got) < len(sent) and time.monotonic() < deadline:
            got += receiver.notifications()["messages"]
        expect(got == sent, f"sent {[m[0] for m in sent]}, received {[m[0] for m in got]} or other texts", sender, receiver)
        expect(receiver.notifications()["messages"] == [], "a message was delivered twice")

        # Upstream reports a transfer that failed as one result and must not notify either.
        bad = sender.transfer(op="write", segment=receiver.segment, items=[[0, receiver.base + LENGTH, 64]], notify=["never", ""])
        expect(not bad["ok"], f"WRITE past the end: {bad}")
        expect(receiver.notifications()["messages"] == [], "a failed transfer sent its notification")

        if sender_kind == "ours":
            for i in range(3):
                sender.notify(segment=receiver.segment, name=f"n{i}", message="alone")
            got = receiver.notifications()["messages"]
            expect(got == [[f"n{i}", "alone"] for i in range(3)], f"in order: {got}", sender, receiver)


if __name__ == "__main__":
    main(*sys.argv[1:])
