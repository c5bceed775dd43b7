//! Short binary messages: headers and status frames of TCP, datagrams between engines on one host; and replies to connection
//! requests. The first byte says which.

use transfer_engine::handshake::ConnectionMessage;
use transfer_engine::json;
use transfer_engine::transport::rdma;
use transfer_engine::transport::shm;
use transfer_engine::transport::slice::Op;
use transfer_engine::transport::tcp::wire::{verdict, Header, Verdict, HEADER_LEN, OK_FRAME, REJECTED_FRAME};

use super::memory::bounded;

/// As that of `handshake`, twice.
const PER_BYTE: usize = 1280;

/// What is read is written as the same bytes.
pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    bounded(rest, PER_BYTE, || match kind % 3 {
        0 => tcp(rest),
        1 => datagram(rest),
        _ => reply(rest),
    });
}

fn tcp(bytes: &[u8]) {
    if let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(bytes);
        let again = header.encode_marked(Header::mark(bytes));
        assert_eq!(Header::decode(&again), header);
        assert_eq!((&again[..16], &again[17..]), (&bytes[..16], &bytes[17..]));
        assert_eq!(header.op == Op::Write, bytes[16] & 0x7f == 1);
    }
    if let Some(frame) = bytes.first_chunk() {
        match verdict(*frame) {
            Verdict::Ok => assert_eq!(*frame, OK_FRAME),
            Verdict::Rejected => assert_eq!(*frame, REJECTED_FRAME),
            Verdict::UnknownCode(code) => assert!(code > 1 && frame[4..] == OK_FRAME[4..]),
            Verdict::NotAFrame => assert_ne!(frame[4..], OK_FRAME[4..]),
        }
    }
}

fn datagram(bytes: &[u8]) {
    if let Some(again) = shm::fuzz::rewritten(bytes) {
        assert_eq!(again, bytes);
    }
    if let Some(again) = shm::fuzz::greeting(bytes) {
        assert!(bytes.starts_with(&again));
    }
}

/// Two messages in an array: what was asked, and the answer.
fn reply(bytes: &[u8]) {
    let Ok(value) = json::parse(bytes) else { return };
    let decoded = |index: usize| value.get(index).and_then(|value| ConnectionMessage::decode(value).ok());
    let Some((request, reply)) = decoded(0).zip(decoded(1)) else { return };
    match rdma::fuzz::check_reply(&request, &reply) {
        Ok(()) => assert!(reply.reply_msg.is_empty() && reply.qp_num.len() == request.qp_num.len()),
        Err(error) => assert!(error.to_string().len() < 4096 + bytes.len() * 2),
    }
}
