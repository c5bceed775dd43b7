//! Submit calls over RDMA to memory that the peer registered after its segment was opened: they read its descriptor again, and
//! their slices end where the buffers of the new one do.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use rdma_node::{apart, Node, FOREVER};
use transfer_engine::engine::submit::Request;
use transfer_engine::memory::Range;

const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;
/// Of a buffer of the peer.
const PART: u64 = 64 << 10;
const LEN: u64 = 8192;

/// Writes [`LEN`] bytes to each of the places in one call, and expects them to arrive.
fn write(from: &Node, target: i32, places: &[u64]) {
    let batch = from.engine.allocate_batch(places.len()).unwrap();
    let request = |index: usize| {
        let source = from.addr() + index as u64 * LEN;
        Request { opcode: WRITE, source, target, offset: places[index], len: LEN }
    };
    from.engine.submit(batch, places.len(), request, None).unwrap();
    from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
    for task in 0..places.len() {
        let error = from.engine.task_error(batch, task).unwrap();
        assert_eq!(
            from.engine.task_status(batch, task).unwrap(),
            (STATUS_COMPLETED, LEN),
            "{task}: {error:?}"
        );
    }
    from.engine.free_batch(batch).unwrap();
}

#[test]
fn slices_end_where_the_buffers_of_the_newest_descriptor_do() {
    if apart("slices_end_where_the_buffers_of_the_newest_descriptor_do", &[]) {
        return;
    }
    let (from, to) = (Node::new("sim0"), Node::new("sim1"));
    let memory = vec![0u8; 8 * PART as usize];
    let part = |number: u64| memory.as_ptr() as u64 + number * PART;
    let register = |number: u64| {
        to.engine.register(&[Range { addr: part(number), len: PART }], "cpu:0", true).unwrap();
    };
    register(0);
    register(1);
    let target = from.engine.open_segment(to.name()).unwrap();
    let (old, new) = (part(1) - LEN / 2, part(5) - LEN / 2);
    write(&from, target, &[part(0), old]);
    register(4);
    write(&from, target, &[part(4), old]);
    register(5);
    register(6);
    write(&from, target, &[new, old, part(6) - LEN / 2]);
    from.engine.destroy();
    to.engine.destroy();
}
