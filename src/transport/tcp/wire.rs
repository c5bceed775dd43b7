//! Bytes of the TCP data plane: the 24-byte request header, and the 8-byte status frame of v2 framing. All are upstream's,
//! as recorded from its release 0.3.13. See "TCP data plane" in ARCHITECTURE.md.

use crate::memory::PeerAccess;
use crate::transport::incarnation;
use crate::transport::slice::Op;

/// Request header on the wire: upstream's C struct, written whole with its padding.
pub const HEADER_LEN: usize = 24;
/// Status frame: the magic in the high half, a code in the low half.
pub const STATUS_LEN: usize = 8;
/// Bytes of an incarnation id, and of the cell that holds it. This project's own; upstream peers have none.
pub const INCARNATION_LEN: usize = incarnation::LEN;

/// Where the header's padding is. Between engines of this project, the request that reads the incarnation cell carries a
/// number of the connection there.
const MARK_AT: usize = 17;
const MARK_LEN: usize = HEADER_LEN - MARK_AT;
/// Marks are less than this.
pub const MARKS: u64 = 1 << (8 * MARK_LEN);

/// Added to the opcode to ask for v2 framing.
const V2_BIT: u8 = 0x80;
/// "MCTV".
const MAGIC: u64 = 0x4D43_5456 << 32;
/// The code for an address that is refused; 0 is good.
const REJECTED: u64 = 1;

/// The frame that says "applied" (WRITE) or "payload follows" (READ).
pub const OK_FRAME: [u8; STATUS_LEN] = MAGIC.to_le_bytes();
/// The frame that says "address refused"; the server closes after it.
pub const REJECTED_FRAME: [u8; STATUS_LEN] = (MAGIC | REJECTED).to_le_bytes();

/// A request, as header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Payload bytes.
    pub size: u64,
    /// Address in the server.
    pub addr: u64,
    /// Direction, seen from the client.
    pub op: Op,
    /// v2 framing: the server answers with a status frame.
    pub v2: bool,
}

impl Header {
    /// The header's bytes, padding zero.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.addr.to_le_bytes());
        let op = u8::from(self.op == Op::Write);
        bytes[16] = if self.v2 { op | V2_BIT } else { op };
        bytes
    }

    /// As [`Header::encode`], with a mark in the padding, which older peers and upstream's ignore.
    pub fn encode_marked(&self, mark: u64) -> [u8; HEADER_LEN] {
        let mut bytes = self.encode();
        bytes[MARK_AT..].copy_from_slice(&mark.to_le_bytes()[..MARK_LEN]);
        bytes
    }

    /// The mark in a header's padding; 0 if there is none.
    pub fn mark(bytes: &[u8; HEADER_LEN]) -> u64 {
        let mut le = [0; 8];
        le[..MARK_LEN].copy_from_slice(&bytes[MARK_AT..]);
        u64::from_le_bytes(le)
    }

    /// What the region has to be open for.
    pub fn wants(&self) -> PeerAccess {
        match self.op {
            Op::Read => PeerAccess::READ,
            Op::Write => PeerAccess::WRITE,
        }
    }

    /// Reads a header; every opcode other than 1 is a READ, padding is ignored.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let word = |at: usize| {
            let mut le = [0; 8];
            le.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(le)
        };
        Header {
            size: word(0),
            addr: word(8),
            op: if bytes[16] & !V2_BIT == 1 { Op::Write } else { Op::Read },
            v2: bytes[16] & V2_BIT != 0,
        }
    }
}

/// What a status frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, or payload follows.
    Ok,
    /// The address is not registered there.
    Rejected,
    /// Magic right, code unknown.
    UnknownCode(u32),
    /// Not a status frame at all.
    NotAFrame,
}

/// Reads a status frame.
pub fn verdict(frame: [u8; STATUS_LEN]) -> Verdict {
    let word = u64::from_le_bytes(frame);
    if word >> 32 != MAGIC >> 32 {
        return Verdict::NotAFrame;
    }
    match word & u64::from(u32::MAX) {
        0 => Verdict::Ok,
        REJECTED => Verdict::Rejected,
        other => Verdict::UnknownCode(other as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_those_recorded_from_upstream() {
        let bytes = Header { size: 16, addr: 0x7f86_a1c1_1074, op: Op::Read, v2: true }.encode();
        assert_eq!(bytes[..17], *b"\x10\0\0\0\0\0\0\0\x74\x10\xc1\xa1\x86\x7f\0\0\x80");
        assert_eq!(bytes[17..], [0; 7]);
    }

    #[test]
    fn a_mark_changes_nothing_but_the_padding() {
        let header = Header { size: 16, addr: 0x7f86_a1c1_1074, op: Op::Read, v2: true };
        let marked = header.encode_marked(MARKS - 2);
        assert_eq!(marked[..17], header.encode()[..17]);
        assert_eq!(Header::decode(&marked), header);
        assert_eq!((Header::mark(&marked), Header::mark(&header.encode())), (MARKS - 2, 0));
    }

    #[test]
    fn every_opcode_but_one_reads() {
        for (opcode, op, v2) in [
            (0, Op::Read, false),
            (1, Op::Write, false),
            (2, Op::Read, false),
            (0x80, Op::Read, true),
            (0x81, Op::Write, true),
            (0x82, Op::Read, true),
            (0xff, Op::Read, true),
        ] {
            let mut bytes = Header { size: 1, addr: 2, op: Op::Read, v2: false }.encode();
            bytes[16] = opcode;
            bytes[17..].fill(0xff);
            assert_eq!(Header::decode(&bytes), Header { size: 1, addr: 2, op, v2 });
        }
    }

    #[test]
    fn frames_are_those_recorded_from_upstream() {
        assert_eq!(OK_FRAME, *b"\0\0\0\0VTCM");
        assert_eq!(REJECTED_FRAME, *b"\x01\0\0\0VTCM");
        assert_eq!(verdict(OK_FRAME), Verdict::Ok);
        assert_eq!(verdict(REJECTED_FRAME), Verdict::Rejected);
        assert_eq!(verdict(*b"\x02\0\0\0VTCM"), Verdict::UnknownCode(2));
        assert_eq!(verdict([0; 8]), Verdict::NotAFrame);
    }
}
