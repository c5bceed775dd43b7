//! Engines with more than one transport.

use std::sync::Arc;

use serde_json::Value;

use crate::memory::Memory;
use crate::node::{Kind, Node, READ, STORELESS, WRITE};
use crate::pair::{Pair, HALF};

/// Whether RDMA has carried something for `node`.
fn used_rdma(node: &Node) -> bool {
    let links: Value = serde_json::from_str(&node.engine.show_links(true)).unwrap();
    let rails = links["rails"].as_array().cloned().unwrap_or_default();
    rails.iter().any(|rail| rail["completed"].as_u64().unwrap() > 0)
}

pub fn whichever_transport_both_sides_have_is_taken_rdma_first(both: Kind) {
    // The other order of installation.
    let turned = |nic| {
        let node = Node::unregistered(Kind::Rdma, nic, STORELESS, "127.0.0.1", Memory::new(None, nic));
        node.install("tcp", nic);
        node.register().unwrap();
        Arc::new(node)
    };
    type Make<'a> = &'a dyn Fn(u8) -> Arc<Node>;
    let [both, rdma, tcp] = [both, Kind::Rdma, Kind::Tcp].map(|kind| move |nic| Node::new(kind, nic));
    let (both, rdma, tcp): (Make<'_>, Make<'_>, Make<'_>) = (&both, &rdma, &tcp);
    let turned: Make<'_> = &turned;
    for (row, (here, there, by_rdma)) in [
        (both, both, true),
        (turned, both, true),
        (both, turned, true),
        (both, rdma, true),
        (rdma, both, true),
        (both, tcp, false),
        (tcp, both, false),
    ]
    .into_iter()
    .enumerate()
    {
        for opcode in [WRITE, READ] {
            let pair = Pair::of(here(0), there(1));
            assert!(!pair.is_same(0, HALF), "nothing to be seen");
            pair.here.move_all(&[pair.request(opcode, 0, HALF)]);
            pair.check(0, HALF);
            assert_eq!(used_rdma(&pair.here), by_rdma, "row {row}, opcode {opcode}");
        }
    }
}
