//! Frames of the handshake port, as requests and as replies, and the messages in them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use transfer_engine::handshake::wire::{self, Broken, Frame, ReadLimits, PROBE};
use transfer_engine::handshake::{ConnectionMessage, Notification};
use transfer_engine::json;

use super::memory::bounded;

/// Far above the inputs; a frame that claims more is refused.
const MOST_BYTES: usize = 1 << 20;
/// As that of `json`; a message holds a second copy of the texts.
const PER_BYTE: usize = 640;

/// A frame is read as the protocol says, however its bytes arrive; its message is written as what was read.
pub fn run(bytes: &[u8]) {
    let expected = expected(bytes);
    for step in [usize::MAX, 1, 3] {
        let read = bounded(bytes, 4, || read(bytes, step));
        assert_eq!(read.as_ref().map_err(Broken::to_string), expected.as_ref().map_err(Broken::to_string));
    }
    let Ok(frame) = expected else { return };
    assert!(bytes.starts_with(&frame.encode()));
    bounded(&frame.body, PER_BYTE, || message(&frame));
}

fn message(frame: &Frame) {
    let Ok(value) = json::parse(&frame.body) else { return };
    let again = wire::encode(frame.kind, &value).unwrap();
    assert_eq!(again, Frame::of_json(frame.kind, &value).encode());
    if let Ok(message) = ConnectionMessage::decode(&value) {
        assert_eq!(ConnectionMessage::decode(&message.encode().unwrap()).unwrap(), message);
    }
    if let Ok(notification) = Notification::decode(&value) {
        assert_eq!(Notification::decode(&notification.encode().unwrap()).unwrap(), notification);
    }
}

/// The protocol once more, over bytes that are all there.
fn expected(bytes: &[u8]) -> Result<Frame, Broken> {
    let Some((length, payload)) = bytes.split_first_chunk::<8>() else {
        return Err(if bytes.is_empty() { Broken::Closed } else { Broken::Truncated });
    };
    let length = u64::from_le_bytes(*length);
    if length == 0 || length > MOST_BYTES as u64 {
        return Err(Broken::Length(length, MOST_BYTES));
    }
    let payload = payload.get(..length as usize).ok_or(Broken::Truncated)?;
    match payload[0] {
        kind @ 0..=PROBE => Ok(Frame { kind: Some(kind), body: payload[1..].to_vec() }),
        kind @ 0x80.. => Err(Broken::Kind(kind)),
        _ => Ok(Frame { kind: None, body: payload.to_vec() }),
    }
}

/// Bytes that arrive a few at a time.
struct Arriving<'a> {
    rest: &'a [u8],
    step: usize,
}

impl AsyncRead for Arriving<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let len = self.rest.len().min(self.step).min(buffer.remaining());
        let (now, later) = self.rest.split_at(len);
        buffer.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

fn read(bytes: &[u8], step: usize) -> Result<Frame, Broken> {
    thread_local!(static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap());
    let hour = Duration::from_secs(3600);
    let limits = ReadLimits { max_length: MOST_BYTES, read_timeout: hour, frame_timeout: hour };
    let mut arriving = Arriving { rest: bytes, step };
    RUNTIME.with(|runtime| runtime.block_on(wire::read(&mut arriving, &limits)))
}
