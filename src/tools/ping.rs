//! A small engine that asks a peer whether it lives, and reads from its memory. It never writes to the peer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::guest;
use crate::engine::submit::Request;
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::memory::Range;

/// Bytes of the READs of a round: one that passes any link, the one whose time is told, and one that fills packets of any size.
const READS: [u64; 3] = [64, READ_BYTES, 65536];
/// The READ whose time is told. Chosen: a page, which all transports move in one piece.
const READ_BYTES: u64 = 4096;
/// Opcode of READ.
const READ: i32 = 0;

/// An engine and the segment that it asks; destroyed when it is dropped. In a store it has a name of its own meanwhile.
pub struct Pinger {
    engine: Arc<Engine>,
    segment: String,
    limit: Duration,
    /// Address of the memory that is read into.
    memory: u64,
    /// Id of the segment once it is open.
    id: Option<i32>,
}

/// What one round has found.
#[derive(Debug, Default)]
pub struct Round {
    /// The handshake port answered after this time; with a store, the question for its address included.
    pub handshake: Option<Duration>,
    /// A READ of so many bytes took so long; `None` also where there is no buffer.
    pub read: Option<(u64, Duration)>,
    /// The transport that was used, or would have been.
    pub transport: Option<&'static str>,
    /// Why the round failed.
    pub fault: Option<Error>,
}

impl Pinger {
    /// Makes the engine, with the transports that suit this machine and the one that needs no NIC. What is asked has `limit` for
    /// each answer.
    pub fn new(connection: &str, segment: &str, limit: Duration) -> Result<Self> {
        let engine = guest::engine(connection, segment, "ping")?;
        // From here on it is destroyed on failure.
        let mut pinger = Pinger { engine, segment: segment.into(), limit, memory: 0, id: None };
        let engine = &pinger.engine;
        guest::add_plain(engine)?;
        let room = READS[READS.len() - 1];
        pinger.memory = engine.allocate_shared(room, 0, -1)?;
        engine.register(&[Range { addr: pinger.memory, len: room }], "*", false)?;
        Ok(pinger)
    }

    /// One round: a handshake, then READs from the first buffer if there is one.
    pub fn round(&mut self) -> Round {
        let mut round = Round::default();
        round.fault = self.ask(&mut round).err();
        round
    }

    fn ask(&mut self, round: &mut Round) -> Result<()> {
        let begun = Instant::now();
        self.engine.probe_within(&self.segment, self.limit)?;
        round.handshake = Some(begun.elapsed());
        let id = match self.id {
            Some(id) => id,
            None => *self.id.insert(self.engine.open_segment(&self.segment)?),
        };
        let mut first = None;
        self.engine.segment_buffers(id, |addr, len, _| {
            first.get_or_insert((addr, len));
        })?;
        let transport = self.engine.transport_to(id)?;
        round.transport = Some(transport);
        let Some((offset, len)) = first else { return Ok(()) };
        let mut arrived = None;
        for most in READS {
            let len = len.min(most);
            let request = Request { opcode: READ, source: self.memory, target: id, offset, len };
            let begun = Instant::now();
            let read = self.engine.transfer(1, 0, |_| request, None, Some(self.limit));
            read.map_err(|error| explained(error, len, arrived, transport))?;
            if most == READ_BYTES {
                round.read = Some((len, begun.elapsed()));
            }
            arrived = Some(len);
        }
        Ok(())
    }
}

/// Why a READ of `len` bytes failed, when one of `smaller` bytes had arrived a moment before.
fn explained(error: Error, len: u64, smaller: Option<u64>, transport: &str) -> Error {
    let lost = matches!(error.kind(), Class::Timeout | Class::Network);
    match smaller.filter(|smaller| lost && *smaller < len) {
        Some(smaller) => error.context(format_args!(
            "READ of {len} bytes over {transport}, although one of {smaller} bytes has just arrived (if that repeats, something \
             on the way drops larger packets: compare the MTU of both hosts' links, switches and tunnels)"
        )),
        None => error.context(format_args!("READ of {len} bytes over {transport}")),
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.engine.destroy();
    }
}
