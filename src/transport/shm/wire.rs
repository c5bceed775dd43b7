//! What two engines say to each other over their socket: datagrams of 64-bit numbers in the machine's own order, since both run
//! on one machine. The first number is the kind; then come entries of the kind's length.

/// Version of this protocol, and what every greeting begins with.
const MAGIC: u64 = 0x6d74_655f_7368_6d02;
/// Entries of one message.
pub(super) const MOST_ENTRIES: usize = 128;
/// Numbers of the longest entry.
const LONGEST: usize = 6;
/// Bytes of the longest message.
pub(super) const MOST_BYTES: usize = 8 * (1 + MOST_ENTRIES * LONGEST);

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first message of a connection, by who made it: [`Hello`].
    Hello = 1,
    /// The answer: [`Welcome`].
    Welcome,
    /// WRITEs to be pulled: tag, source, target, length of each, and the id of the shared memory that the source is in, or 0.
    Write,
    /// Tags of WRITEs that are not wanted any more; each is answered all the same.
    Withdraw,
    /// Ranges to be READ: tag, address, length.
    Ask,
    /// How WRITEs ended: tag, one of [`End`].
    Ended,
    /// What may be read: tag, first byte and length of the region, address and number of its word (0: nothing), and the id of the
    /// shared memory that it is in, or 0.
    Grant,
    /// Shared memory of the sender, whose descriptor comes with the message: id, first byte, length.
    Share,
    /// Ids of shared memory that the sender has freed.
    Unshare,
    /// A page of the sender's through which short messages go ([`super::ring`]), whose descriptor comes with the message: its
    /// length. The answer to one is one.
    Ring,
    /// There is something in the ring; the number means nothing.
    Wake,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Write,
        Kind::Withdraw,
        Kind::Ask,
        Kind::Ended,
        Kind::Grant,
        Kind::Share,
        Kind::Unshare,
        Kind::Ring,
        Kind::Wake,
    ];

    /// Numbers of an entry.
    pub(super) const fn width(self) -> usize {
        match self {
            Kind::Hello => 8,
            Kind::Welcome => 5,
            Kind::Write => 5,
            Kind::Withdraw => 1,
            Kind::Ask => 3,
            Kind::Ended => 2,
            Kind::Grant => 6,
            Kind::Share => 3,
            Kind::Unshare => 1,
            Kind::Ring => 1,
            Kind::Wake => 1,
        }
    }
}

/// How a WRITE ended at the engine that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every byte is there.
    Applied = 0,
    /// The range is not in one region that is open to peers.
    Refused,
    /// The source is not mapped.
    SourceFault,
    /// The target is not mapped.
    TargetFault,
    /// It was withdrawn before it was begun.
    Withdrawn,
}

impl End {
    /// `None` for a number that is none of them.
    pub(super) fn of(number: u64) -> Option<Self> {
        [End::Applied, End::Refused, End::SourceFault, End::TargetFault, End::Withdrawn]
            .into_iter()
            .find(|end| *end as u64 == number)
    }
}

/// Who greets, and whom it expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// Incarnation of the sender.
    pub own: [u64; 2],
    /// Incarnation that the receiver is expected to have.
    pub expected: [u64; 2],
    /// Where the sender's incarnation can be read.
    pub cell: u64,
    /// Where the sender's word for this connection can be read, and its number.
    pub word: (u64, u64),
}

impl Hello {
    /// As a message.
    pub(super) fn encode(&self) -> Message<FEW_BYTES> {
        let Hello { own, expected, cell, word } = *self;
        let mut message = Message::new(Kind::Hello);
        message.push(&[MAGIC, own[0], own[1], expected[0], expected[1], cell, word.0, word.1]);
        message
    }

    /// Reads one; `None` if it is of another version.
    pub(super) fn decode(entry: &[u64]) -> Option<Self> {
        let [MAGIC, one, two, three, four, cell, word, number] = *entry else { return None };
        Some(Hello { own: [one, two], expected: [three, four], cell, word: (word, number) })
    }
}

/// The answer to [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    /// Incarnation of the sender.
    pub own: [u64; 2],
    /// Where it can be read.
    pub cell: u64,
    /// Whether the sender has read the receiver's memory: 1, or errno.
    pub verdict: Verdict,
}

/// What the proof gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It worked.
    Proven = 1,
    /// The receiver's memory cannot be read, or is not what it should be.
    Unreadable,
    /// The receiver expects somebody else.
    Stranger,
}

impl Welcome {
    /// As a message.
    pub(super) fn encode(&self) -> Message<FEW_BYTES> {
        let mut message = Message::new(Kind::Welcome);
        message.push(&[MAGIC, self.own[0], self.own[1], self.cell, self.verdict as u64]);
        message
    }

    /// Reads one; `None` if it is of another version.
    pub(super) fn decode(entry: &[u64]) -> Option<Self> {
        let [MAGIC, one, two, cell, verdict] = *entry else { return None };
        let verdict = [Verdict::Proven, Verdict::Unreadable, Verdict::Stranger]
            .into_iter()
            .find(|known| *known as u64 == verdict)?;
        Some(Welcome { own: [one, two], cell, verdict })
    }
}

/// A message that is being made.
pub(super) struct Message<const N: usize = MOST_BYTES> {
    kind: Kind,
    bytes: [u8; N],
    used: usize,
}

/// Bytes of a message with an entry or a few: a long one takes time to be made.
pub(super) const FEW_BYTES: usize = 256;

impl<const N: usize> Message<N> {
    /// One without entries.
    pub(super) fn new(kind: Kind) -> Self {
        let mut message = Message { kind, bytes: [0; N], used: 0 };
        message.put(kind as u64);
        message
    }

    /// Adds an entry, which has the kind's length.
    pub(super) fn push(&mut self, entry: &[u64]) {
        debug_assert!(entry.len() == self.kind.width() && !self.is_full());
        entry.iter().for_each(|number| self.put(*number));
    }

    fn put(&mut self, number: u64) {
        if let Some(room) = self.bytes.get_mut(self.used..self.used + 8) {
            room.copy_from_slice(&number.to_ne_bytes());
            self.used += 8;
        }
    }

    /// There is no room for another entry.
    pub(super) fn is_full(&self) -> bool {
        let entry = 8 * self.kind.width();
        self.used + entry > N || self.used >= 8 + MOST_ENTRIES * entry
    }

    /// What goes into the socket.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// Reads a message: its kind, and each entry in turn. `None` for what no peer of this project sends.
pub(super) fn decode(bytes: &[u8]) -> Option<(Kind, impl Iterator<Item = [u64; 8]> + '_)> {
    let (kind, rest) = bytes.split_first_chunk::<8>()?;
    let kind = u64::from_ne_bytes(*kind);
    let kind = Kind::ALL.into_iter().find(|known| *known as u64 == kind)?;
    let width = 8 * kind.width();
    // No more than receivers make room for.
    if rest.is_empty() || !rest.len().is_multiple_of(width) || rest.len() > MOST_ENTRIES * width {
        return None;
    }
    let entries = rest.chunks_exact(width).map(|entry| {
        let mut numbers = [0; 8];
        for (number, bytes) in numbers.iter_mut().zip(entry.chunks_exact(8)) {
            *number = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        numbers
    });
    Some((kind, entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_survive_the_wire() {
        let hello = Hello { own: [1, 2], expected: [3, 4], cell: 5, word: (6, 7) };
        let message = hello.encode();
        let (kind, mut entries) = decode(message.bytes()).unwrap();
        assert_eq!((kind, Hello::decode(&entries.next().unwrap())), (Kind::Hello, Some(hello)));
        let welcome = Welcome { own: [1, 2], cell: 3, verdict: Verdict::Unreadable };
        let message = welcome.encode();
        let (kind, mut entries) = decode(message.bytes()).unwrap();
        assert_eq!((kind, Welcome::decode(&entries.next().unwrap()[..5])), (Kind::Welcome, Some(welcome)));
    }

    #[test]
    fn what_is_no_message_is_told_from_messages() {
        let mut message: Message = Message::new(Kind::Write);
        assert!(decode(message.bytes()).is_none(), "it has no entry");
        while !message.is_full() {
            message.push(&[1, 2, 3, 4, 5]);
        }
        let (kind, entries) = decode(message.bytes()).unwrap();
        assert_eq!((kind, entries.count()), (Kind::Write, MOST_ENTRIES));
        for cut in [0, 1, 7, 8, 9, 47, 49] {
            assert!(decode(&message.bytes()[..cut]).is_none(), "{cut} bytes");
        }
        let withdraw =
            |tags: usize| [&(Kind::Withdraw as u64).to_ne_bytes()[..], &vec![0; 8 * tags]].concat();
        assert!(decode(&withdraw(MOST_ENTRIES)).is_some() && decode(&withdraw(MOST_ENTRIES + 1)).is_none());
        for kind in [0, 12, u64::MAX] {
            let mut bytes = message.bytes().to_vec();
            bytes[..8].copy_from_slice(&kind.to_ne_bytes());
            assert!(decode(&bytes).is_none(), "kind {kind}");
        }
        assert_eq!([0, 4, 5].map(End::of), [Some(End::Applied), Some(End::Withdrawn), None]);
    }
}
