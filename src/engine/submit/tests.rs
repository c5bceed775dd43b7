//! Submits from memory of a kind that transports may not move.

use super::*;
use crate::error::Class;
use crate::memory::{Kind, Range};
use crate::transport::slice::Status;

const LEN: u64 = 64;

fn engine() -> Arc<Engine> {
    let engine = Engine::create("P2PHANDSHAKE", "127.0.0.1", false).unwrap();
    engine.install_transport("tcp", None).unwrap();
    engine
}

fn range(bytes: &[u8]) -> Range {
    Range { addr: bytes.as_ptr() as u64, len: bytes.len() as u64 }
}

#[test]
fn memory_that_no_transport_takes_is_refused_with_the_reason() {
    let (here, there) = (engine(), engine());
    let (host, other) = (vec![7u8; LEN as usize], vec![0u8; LEN as usize]);
    here.register(&[range(&host)], "cpu:0", true).unwrap();
    there.register(&[range(&other)], "cpu:0", true).unwrap();
    // Never followed: the submit is refused before anything is moved.
    let addr = 1 << 40;
    here.local.registry.insert_as(Range { addr, len: LEN }, Kind::Device { ordinal: 3 });
    let peer = here.open_segment(&there.local.name).unwrap();
    let batch = here.allocate_batch(1).unwrap();
    let (host, other) = (range(&host).addr, range(&other).addr);
    let own = LOCAL_SEGMENT;
    for (side, source, target, offset, mover) in [
        ("source", addr, peer, other, "tcp"),
        ("source", addr, own, host, OWN_SEGMENT),
        ("target", host, own, addr, OWN_SEGMENT),
    ] {
        for opcode in [0, 1] {
            let request = Request { opcode, source, target, offset, len: LEN };
            let error = here.submit(batch, 1, |_| request, None).unwrap_err();
            let text =
                format!("{side} memory at {addr:#x} is memory of device 3, which {mover} does not move");
            assert!(error.text().contains(&text), "{error}");
            assert_eq!((error.code(), error.kind()), (Code::InvalidArgument, Class::Unsupported));
        }
    }
    // Refused calls took no room of the batch, and host memory goes everywhere.
    for (batch, target, offset) in [(batch, peer, other), (here.allocate_batch(1).unwrap(), own, host)] {
        let request = Request { opcode: 1, source: host, target, offset, len: LEN };
        here.submit(batch, 1, |_| request, None).unwrap();
        let batch = here.batch(batch).unwrap();
        assert!(batch.wait(Some(Instant::now() + Duration::from_secs(20))));
        assert_eq!(batch.with_task(0, |task| task.status()).unwrap(), Status::Completed);
    }
    here.destroy();
    there.destroy();
}
