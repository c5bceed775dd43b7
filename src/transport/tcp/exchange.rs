//! What goes through the socket of a pipeline: many requests leave in one send, and one receive puts many replies
//! straight into place. Under the lane's lock.

use std::io;

use super::ends::{lost, Down};
use super::pipeline::{Frames, Moved, Pipeline, RUN};
use super::sock::{Io, Iov, Socket};
use super::stats::Stats;
use super::wire::{HEADER_LEN, STATUS_LEN};
use crate::transport::slice::Op;

/// Receives per call. Chosen: after 1024 small replies (16 times [`RUN`]) the thread turns to its other lanes.
const ROUNDS: usize = 16;
/// Bytes of an unwanted body that one receive throws away. Chosen: few calls for the rest of a large body, and little
/// memory for the lanes that had to abandon a request.
const SINK_BYTES: usize = 64 << 10;

/// Memory that replies are received into, beside the callers' buffers.
pub(super) struct Exchange {
    frames: Frames,
    /// Receives the rest of bodies that nobody wants any more. Empty until there is such a body.
    sink: Vec<u8>,
}

impl Default for Exchange {
    fn default() -> Self {
        Exchange { frames: [[0; STATUS_LEN]; RUN], sink: Vec::new() }
    }
}

impl Exchange {
    /// Reads replies (`read`) and sends requests as far as the socket goes.
    pub(super) fn advance(
        &mut self,
        pipeline: &mut Pipeline,
        socket: &Socket,
        read: bool,
        stats: &Stats,
    ) -> Result<Moved, Down> {
        let mut moved = Moved::default();
        if read {
            self.receive(pipeline, socket, &mut moved, stats)?;
        }
        if let Err(down) = send(pipeline, socket, &mut moved, stats) {
            // The peer may have said why before it hung up. Any other end that shows now is a consequence of the first
            // one, which the kernel reports only once.
            return match self.receive(pipeline, socket, &mut moved, stats) {
                Err(Down::Rejected) => Err(Down::Rejected),
                _ => Err(down),
            };
        }
        Ok(moved)
    }

    fn receive(
        &mut self,
        pipeline: &mut Pipeline,
        socket: &Socket,
        moved: &mut Moved,
        stats: &Stats,
    ) -> Result<(), Down> {
        let frame_len = if pipeline.is_v2() { STATUS_LEN as u64 } else { 0 };
        for _ in 0..ROUNDS {
            let run = pipeline.incoming();
            if self.sink.is_empty() && run.requests.clone().any(|request| request.slice().is_none()) {
                let reserved = self.sink.try_reserve_exact(SINK_BYTES);
                reserved.map_err(|_| lost(io::ErrorKind::OutOfMemory.into()))?;
                self.sink.resize(SINK_BYTES, 0);
            }
            let mut iov = Iov::new();
            let mut skip = run.skip;
            let mut sink = Some(&mut self.sink[..]);
            let mut asked_for = 0;
            for (request, frame) in run.requests.zip(&mut self.frames) {
                asked_for += 1;
                if skip < frame_len {
                    iov.push_mut(&mut frame[skip as usize..]);
                }
                let body_got = skip.saturating_sub(frame_len);
                skip = 0;
                match (request.op(), request.slice()) {
                    (Op::Write, _) => {}
                    (Op::Read, Some(slice)) => iov.push_raw(slice.local + body_got, slice.len - body_got),
                    (Op::Read, None) => {
                        // One unwanted body per receive: the sink has no second half.
                        let Some(sink) = sink.take() else { break };
                        let room = (request.len() - body_got).min(sink.len() as u64) as usize;
                        iov.push_mut(&mut sink[..room]);
                        if (room as u64) < request.len() - body_got {
                            break;
                        }
                    }
                }
            }
            // Nothing is awaited: this looks for the end of the stream.
            let idle = iov.bytes() == 0;
            let mut probe = [0u8; 1];
            if idle {
                iov.push_mut(&mut probe);
            }
            let asked = iov.bytes();
            match socket.recv(&mut iov) {
                Io::Moved(_) if idle => {
                    return Err(Down::Protocol("the peer sent bytes that nobody asked for".into()))
                }
                Io::Moved(n) => {
                    pipeline.note_received(n as u64, &mut self.frames, moved, stats)?;
                    if n < asked {
                        return Ok(());
                    }
                }
                Io::WouldBlock => return Ok(()),
                Io::Eof => return Err(Down::Closed(None)),
                Io::Fault if asked_for > 1 => pipeline.be_cautious(),
                Io::Fault => return Err(Down::Fault { sending: false }),
                Io::Failed(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }
}

fn send(pipeline: &mut Pipeline, socket: &Socket, moved: &mut Moved, stats: &Stats) -> Result<(), Down> {
    while pipeline.wants_to_send() {
        let run = pipeline.outgoing();
        let count = run.requests.len();
        let mut iov = Iov::new();
        let mut skip = run.skip;
        for request in run.requests {
            if skip < HEADER_LEN as u64 {
                iov.push(&request.header[skip as usize..]);
            }
            let body_sent = skip.saturating_sub(HEADER_LEN as u64);
            if let (Op::Write, Some(slice)) = (request.op(), request.slice()) {
                iov.push_raw(slice.local + body_sent, slice.len - body_sent);
            }
            skip = 0;
        }
        let asked = iov.bytes();
        match socket.send(&mut iov) {
            Io::Moved(n) => {
                pipeline.note_sent(n as u64, moved, stats);
                if n < asked {
                    moved.blocked = true;
                    return Ok(());
                }
            }
            Io::WouldBlock => {
                moved.blocked = true;
                return Ok(());
            }
            Io::Fault if count > 1 => pipeline.be_cautious(),
            Io::Fault => return Err(Down::Fault { sending: true }),
            Io::Failed(error) => return Err(lost(error)),
            Io::Eof => return Err(Down::Closed(None)),
        }
    }
    Ok(())
}
