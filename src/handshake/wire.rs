//! Frames: an eight-byte little-endian length, a type byte that the length counts, a JSON text.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::error::Error;
use crate::json;

/// Type of RDMA endpoint set-up and ready acknowledgement. The numbers of all four types are upstream's.
pub const CONNECTION: u8 = 0;
/// Type of the descriptor exchange.
pub const METADATA: u8 = 1;
/// Type of notifications.
pub const NOTIFY: u8 = 2;
/// Type of liveness probes.
pub const PROBE: u8 = 3;

/// Bytes of the length field.
const LENGTH_BYTES: usize = 8;

/// Bytes by which a receive buffer grows at least. Chosen: one step holds most messages, and costs little if the peer
/// claims a length that it does not send.
const STEP_BYTES: usize = 64 << 10;

/// One request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Type byte, or `None` in the old protocol that had none.
    pub kind: Option<u8>,
    /// JSON text, not checked.
    pub body: Vec<u8>,
}

// For peers that tests play: this crate writes frames in one piece (`encode`).
#[cfg(any(test, feature = "internals"))]
impl Frame {
    /// A frame whose body is `value` and a newline.
    pub fn of_json(kind: Option<u8>, value: &Value) -> Self {
        let mut body = json::write(value).into_bytes();
        body.push(b'\n');
        Frame { kind, body }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = head(self.kind, self.body.len());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// The bytes on the wire of a frame whose body is `value` and a newline. `ERR_MEMORY` if they do not fit.
pub fn encode(kind: Option<u8>, value: &Value) -> Result<Vec<u8>, Error> {
    let mut bytes = head(kind, 0);
    let head_len = bytes.len();
    json::append_line(&mut bytes, value)?;
    let length = bytes.len() - head_len + usize::from(kind.is_some());
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u64).to_le_bytes());
    Ok(bytes)
}

/// The bytes before a body of `body_len` bytes: the length and, unless it is the old protocol, the type.
pub(super) fn head(kind: Option<u8>, body_len: usize) -> Vec<u8> {
    let length = body_len + usize::from(kind.is_some());
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + 1);
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    bytes.extend(kind);
    bytes
}

/// What a receiver accepts.
#[derive(Clone, Debug)]
pub struct ReadLimits {
    /// Largest length field accepted, bytes.
    pub max_length: usize,
    /// Longest wait for the next bytes.
    pub read_timeout: Duration,
    /// Longest time from the start of the frame to its end.
    pub frame_timeout: Duration,
}

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer closed before the first byte.
    #[error("closed without a byte")]
    Closed,
    /// The peer closed inside the frame.
    #[error("closed in the middle of a frame")]
    Truncated,
    /// Length field 0 or over the limit.
    #[error("frame length {0} is not in 1..={1}")]
    Length(u64, usize),
    /// First byte of the payload is neither a type nor the start of a JSON text.
    #[error("unknown message type {0:#04x}")]
    Kind(u8),
    /// Nothing arrived for the read time-out, or the frame took too long.
    #[error("no complete frame in time")]
    Slow,
    /// The buffer could not grow.
    #[error("out of memory for a frame")]
    Memory,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads one frame, using memory only for bytes that arrive.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R, limits: &ReadLimits) -> Result<Frame, Broken> {
    timeout(limits.frame_timeout, read_frame(stream, limits)).await.unwrap_or(Err(Broken::Slow))
}

async fn read_frame<R: AsyncRead + Unpin>(stream: &mut R, limits: &ReadLimits) -> Result<Frame, Broken> {
    let mut length = [0; 8];
    fill(stream, &mut length, limits, Broken::Closed).await?;
    let length = u64::from_le_bytes(length);
    let payload_len = match usize::try_from(length) {
        Ok(bytes) if (1..=limits.max_length).contains(&bytes) => bytes,
        _ => return Err(Broken::Length(length, limits.max_length)),
    };
    let mut kind = [0];
    fill(stream, &mut kind, limits, Broken::Truncated).await?;
    let mut body = Vec::new();
    let (kind, body_len) = match kind[0] {
        typed @ 0..=PROBE => (Some(typed), payload_len - 1),
        first => {
            grow(&mut body, payload_len)?;
            body.push(first);
            (None, payload_len)
        }
    };
    while body.len() < body_len {
        let missing = body_len - body.len();
        if body.len() == body.capacity() {
            grow(&mut body, missing)?;
        }
        let mut bounded = (&mut *stream).take(missing as u64);
        let step = timeout(limits.read_timeout, bounded.read_buf(&mut body)).await;
        if step.map_err(|_| Broken::Slow)?? == 0 {
            return Err(Broken::Truncated);
        }
    }
    // Upstream compares signed numbers, so it takes such a byte for a type and not for the start of an untyped text.
    // The frame is read to its end first, so that closing does not reset the connection.
    match body.first() {
        Some(&first) if kind.is_none() && first >= 0x80 => Err(Broken::Kind(first)),
        _ => Ok(Frame { kind, body }),
    }
}

/// Reads exactly `buffer`; `early` is the failure if the peer closes before its first byte.
async fn fill<R: AsyncRead + Unpin>(
    stream: &mut R,
    buffer: &mut [u8],
    limits: &ReadLimits,
    early: Broken,
) -> Result<(), Broken> {
    let mut done = 0;
    while done < buffer.len() {
        let step = timeout(limits.read_timeout, stream.read(&mut buffer[done..])).await;
        match step.map_err(|_| Broken::Slow)?? {
            0 if done == 0 => return Err(early),
            0 => return Err(Broken::Truncated),
            n => done += n,
        }
    }
    Ok(())
}

/// Doubles `body`, by at least a step and at most what is missing.
fn grow(body: &mut Vec<u8>, missing: usize) -> Result<(), Broken> {
    body.try_reserve_exact(missing.min(body.len().max(STEP_BYTES))).map_err(|_| Broken::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ReadLimits {
        ReadLimits {
            max_length: 1 << 20,
            read_timeout: Duration::from_secs(60),
            frame_timeout: Duration::from_secs(60),
        }
    }

    fn run<T>(future: impl std::future::Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn read_bytes(mut bytes: &[u8]) -> Result<Frame, Broken> {
        run(read(&mut bytes, &limits()))
    }

    #[test]
    fn frames_survive_the_wire() {
        for kind in [None, Some(CONNECTION), Some(METADATA), Some(NOTIFY), Some(PROBE)] {
            for len in [1, 2, 3, STEP_BYTES, 3 * STEP_BYTES + 1] {
                let frame = Frame { kind, body: vec![b'{'; len] };
                assert_eq!(read_bytes(&frame.encode()).unwrap(), frame);
            }
            let value = serde_json::json!({"name": "\u{e9}\n", "list": [1, -2.5, null, true]});
            assert_eq!(encode(kind, &value).unwrap(), Frame::of_json(kind, &value).encode());
        }
    }

    #[test]
    fn broken_frames_are_told_apart() {
        assert!(matches!(read_bytes(b""), Err(Broken::Closed)));
        assert!(matches!(read_bytes(&[2, 0, 0]), Err(Broken::Truncated)));
        assert!(matches!(read_bytes(&[0; 8]), Err(Broken::Length(0, _))));
        assert!(matches!(read_bytes(&[0xff; 9]), Err(Broken::Length(u64::MAX, _))));
        assert!(matches!(read_bytes(&[1, 0, 0, 0, 0, 0, 0, 0]), Err(Broken::Truncated)));
        assert!(matches!(read_bytes(&[3, 0, 0, 0, 0, 0, 0, 0, 3, b'{']), Err(Broken::Truncated)));
        assert!(matches!(read_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 0x80, b'{']), Err(Broken::Kind(0x80))));
        assert!(matches!(read_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), Err(Broken::Kind(0xff))));
    }

    #[test]
    fn the_buffer_follows_what_arrives_not_what_is_claimed() {
        let mut body = Vec::new();
        grow(&mut body, 1 << 40).unwrap();
        assert!(body.capacity() <= 2 * STEP_BYTES);
    }

    #[test]
    fn a_silent_or_dribbling_peer_runs_into_a_deadline() {
        run(async {
            let (mut ours, theirs) = tokio::io::duplex(64);
            let silent = ReadLimits { read_timeout: Duration::from_millis(1), ..limits() };
            assert!(matches!(read(&mut ours, &silent).await, Err(Broken::Slow)));
            let whole = ReadLimits { frame_timeout: Duration::from_millis(1), ..limits() };
            assert!(matches!(read(&mut ours, &whole).await, Err(Broken::Slow)));
            drop(theirs);
        });
    }
}
