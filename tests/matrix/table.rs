//! What is expected of each cell.

use std::time::Duration;

use crate::cells::{Expected, Fault, Moment};
use crate::node::Kind;
use Expected::{Fails, GoesOn, May};

/// What becomes of the transfers.
pub fn expected(kind: Kind, fault: Fault, moment: Moment) -> Expected {
    let rdma = is_rdma(kind);
    match fault {
        // Whoever comes back under its name is another engine: what was meant for the one before is not for it.
        Fault::Killed => Fails(&["Network"]),
        Fault::Restarted => Fails(&["Network", "Metadata"]),
        Fault::Left if rdma => Fails(&["Network", "Rejected"]),
        Fault::Left => Fails(&["Network"]),
        // A NIC moves bytes without its host's threads; so does a process that reads another one's memory.
        Fault::Stopped if rdma && moment == Moment::Connecting => May(&["Timeout"]),
        Fault::Stopped if rdma || kind == Kind::Shm && moment == Moment::Reading => GoesOn,
        Fault::Stopped => Fails(&["Timeout"]),
        Fault::UnregisteredThere => Fails(&["Rejected", "Argument"]),
        Fault::UnregisteredHere => Fails(&["Argument", "Canceled"]),
        Fault::UnmappedHere => Fails(&["Argument"]),
        Fault::NicDown if rdma => Fails(&["Device", "Network"]),
        Fault::NicDown => GoesOn,
        Fault::Dropped => Fails(&["Timeout", "Network"]),
    }
}

/// Every task is terminal so long after the fault, also on a machine that does other things: mostly it takes a tenth of it.
pub fn limit(kind: Kind, fault: Fault, moment: Moment) -> Duration {
    Duration::from_secs(match (fault, moment) {
        // Nobody but the task's own deadline (MC_RDMA_TASK_TIMEOUT_SEC) ends it.
        (Fault::Stopped, Moment::Connecting) if is_rdma(kind) => 45,
        // A second of silence, and three in which the peer may answer elsewhere (MC_TCP_LIVENESS_SEC), for each of two ways.
        (Fault::Stopped | Fault::Dropped, _) => 20,
        _ => 10,
    })
}

fn is_rdma(kind: Kind) -> bool {
    kind == Kind::Rdma
}
