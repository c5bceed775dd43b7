//! What the fuzz targets need of this transport: messages read and written again, and the greeting of a peer that they play.

use super::board::numbers;
use super::offer;
use super::wire::{self, Hello, Kind, Message, Welcome, MOST_BYTES};
use crate::transport::incarnation::LEN;

/// The message that `bytes` are, written again; `None` if they are none.
pub fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, entries) = wire::decode(bytes)?;
    let mut again = Message::<MOST_BYTES>::new(kind);
    entries.for_each(|entry| again.push(&entry[..kind.width()]));
    Some(again.bytes().to_vec())
}

/// The greeting that `bytes` are, of either side, written again; `None` if they are none, or of another version.
pub fn greeting(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, mut entries) = wire::decode(bytes)?;
    let entry = entries.next()?;
    match kind {
        Kind::Hello => Hello::decode(&entry).map(|hello| hello.encode().bytes().to_vec()),
        Kind::Welcome => {
            Welcome::decode(&entry[..kind.width()]).map(|answer| answer.encode().bytes().to_vec())
        }
        _ => None,
    }
}

/// Name of the abstract socket that the engine with this incarnation listens on.
pub fn socket_name(id: &[u8; LEN]) -> String {
    offer::socket_name(id)
}

/// The greeting of a peer with the incarnation `own`, for the engine `expected`. At `cell` are `own` and, behind it, `number`.
pub fn hello(own: &[u8; LEN], expected: &[u8; LEN], cell: u64, word: (u64, u64)) -> Vec<u8> {
    let hello = Hello { own: numbers(own), expected: numbers(expected), cell, word };
    hello.encode().bytes().to_vec()
}
