//! `docs/src/faults.md`: what the tests expect, for people. `UPDATE_FAULTS=1` writes it anew.

use std::fmt::Write;
use std::path::Path;

use crate::cells::{Expected, Fault, Moment};
use crate::node::Kind;
use crate::table;

const PAGE: &str = "docs/src/faults.md";
const HEAD: &str = "# Faults

What becomes of transfers when something goes wrong, over each transport and at each moment. This page is made by the test that tries each cell
(`tests/matrix`): an engine transfers to another process, the fault is made to happen, and is undone; a process that was killed is replaced by another
one, and memory that is not mapped any more by other memory. In every cell

- each task is terminal, at the latest so long after the beginning of the fault as the last column says, also on a busy machine; mostly it is a tenth;
- what reads COMPLETED has its bytes: they are compared, as long as both processes and their memory are there;
- the local buffer of a task that has failed is not touched any more: it is marked, and looked at again at the end;
- the error has a class ([Errors](errors.md)), and none is INTERNAL; the [metrics](metrics.md) count each task that ended, and each failure under its class;
- once the fault is undone, transfers to a segment that is opened anew arrive within 20 seconds, most of them at once.

Descriptors are not read again by age there (`MC_METADATA_REVALIDATE_MS=0`), and the NICs of the table for RDMA are simulated ones, which try for a tenth
of a second to reach a peer; real ones take seconds. What is missing does not exist or is another cell: a NIC keeps what is registered mapped, and with
one NIC no packet arrives when it is down. A peer that is stopped answers nothing, but its NIC does, and its memory can be read by another process of its
host: so some transfers go on. What waits for such a peer to connect over RDMA is ended by its deadline (`MC_RDMA_TASK_TIMEOUT_SEC`).

**goes on**: everything arrives. **fails**: tasks that run are FAILED with one of these classes, or the next submit call is refused with one; some may
still arrive. **may fail**: one or the other.
";

/// A transport, what it is called, and its faults.
pub type Block = (Kind, &'static str, &'static [Fault]);

pub fn page(blocks: &[Block]) -> String {
    let mut text = HEAD.to_string();
    for (kind, title, faults) in blocks {
        let moments = Moment::ALL.map(Moment::text).join(" | ");
        write!(text, "\n## {title}\n\n| fault | {moments} | at the latest |\n|---|---|---|---|---|---|\n")
            .unwrap();
        for fault in *faults {
            let cells = Moment::ALL.map(|moment| told(table::expected(*kind, *fault, moment)));
            let limits = Moment::ALL.map(|moment| table::limit(*kind, *fault, moment).as_secs());
            let most = limits.iter().max().unwrap();
            let usual = limits.iter().min().unwrap();
            let limit = if most == usual {
                format!("{most} s")
            } else {
                format!("{usual} s ({most} s while it connects)")
            };
            writeln!(text, "| {} | {} | {limit} |", fault.text(), cells.join(" | ")).unwrap();
        }
    }
    text
}

fn told(expected: Expected) -> String {
    let names =
        |classes: &[&str]| classes.iter().map(|class| class.to_uppercase()).collect::<Vec<_>>().join(", ");
    match expected {
        Expected::GoesOn => "goes on".into(),
        Expected::Fails(classes) => format!("fails: {}", names(classes)),
        Expected::May(classes) => format!("may fail: {}", names(classes)),
    }
}

/// Compares the page with what it should be.
pub fn check(blocks: &[Block]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let text = page(blocks);
    if std::env::var_os("UPDATE_FAULTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "{PAGE} is old; UPDATE_FAULTS=1 writes it anew");
}
