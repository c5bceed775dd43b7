//! Two nodes, and requests from one to the other.

use std::sync::Arc;

use transfer_engine::engine::submit::Request;

use crate::memory::LEN;
use crate::node::{Kind, Node};

/// Bytes of the part of a node's memory that requests use: the first half where they are submitted, the second half
/// at the peer.
pub const HALF: usize = LEN / 2;

/// The node that submits, the node that it reaches, and the id of the latter's segment. With the own segment both are
/// one engine, and the second half of its memory stands for the peer's.
pub struct Pair {
    pub here: Arc<Node>,
    pub there: Arc<Node>,
    pub segment: i32,
}

impl Pair {
    pub fn new(kind: Kind) -> Self {
        let here = Node::new(kind, 0);
        let there = if kind == Kind::Own { here.clone() } else { Node::new(kind, 1) };
        Self::of(here, there)
    }

    /// Of two nodes that know nothing of each other yet.
    pub fn of(here: Arc<Node>, there: Arc<Node>) -> Self {
        let segment = here.engine.open_segment(there.name()).unwrap();
        assert_eq!(segment == 0, Arc::ptr_eq(&here, &there));
        Pair { here, there, segment }
    }

    /// `at`: offset on both sides, below half the memory.
    pub fn request(&self, opcode: i32, at: usize, len: usize) -> Request {
        self.target().request(opcode, at, len)
    }

    pub fn target(&self) -> Target<'_> {
        Target { here: &self.here, segment: self.segment, addr: self.there.addr() }
    }

    /// The bytes at `at` are the same on both sides.
    pub fn check(&self, at: usize, len: usize) {
        assert!(self.is_same(at, len), "{len} bytes at {at} differ");
    }

    /// Whether they are.
    pub fn is_same(&self, at: usize, len: usize) -> bool {
        self.here.bytes(at, len) == self.there.bytes(HALF + at, len)
    }
}

/// What a node reaches: a segment, and the memory behind it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub here: &'a Node,
    pub segment: i32,
    /// Address of the peer's memory.
    pub addr: u64,
}

impl Target<'_> {
    /// As [`Pair::request`].
    pub fn request(&self, opcode: i32, at: usize, len: usize) -> Request {
        assert!(at + len <= HALF);
        let (source, offset) = (self.here.addr() + at as u64, self.addr + (HALF + at) as u64);
        Request { opcode, source, target: self.segment, offset, len: len as u64 }
    }
}
