//! Submit calls that name the local NICs, on the simulated libibverbs.

#![cfg(feature = "rdma")]

mod common;
mod rdma_node;

use rdma_node::{apart, soon, Node, FOREVER};
use transfer_engine::engine::submit::Request;
use transfer_engine::error::Code;

const WRITE: i32 = 1;
const STATUS_COMPLETED: i32 = 4;
const COUNT: usize = 16;
const EACH: u64 = 4096;

/// Moves some bytes over the NICs `nics`.
fn write(from: &Node, to: &Node, nics: Option<&str>) -> transfer_engine::error::Result<()> {
    let target = from.engine.open_segment(to.name())?;
    let request = |index: usize| {
        let at = index as u64 * EACH;
        Request { opcode: WRITE, source: from.addr() + at, target, offset: to.addr() + at, len: EACH }
    };
    let batch = from.engine.allocate_batch(COUNT)?;
    let outcome = from.engine.submit_over(batch, COUNT, request, None, nics).map(|()| {
        from.engine.wait_batch(batch, Some(FOREVER)).unwrap();
        for task in 0..COUNT {
            assert_eq!(
                from.engine.task_status(batch, task).unwrap().0,
                STATUS_COMPLETED,
                "{}",
                from.engine.show_links(false)
            );
        }
    });
    from.engine.free_batch(batch)?;
    outcome
}

/// How many requests each local NIC has carried, by its name.
fn carried(node: &Node, nic: &str) -> u64 {
    let rails = node.rails();
    let of_nic = rails.iter().filter(|rail| rail["device"] == nic);
    of_nic.map(|rail| rail["completed"].as_u64().unwrap()).sum()
}

fn matrix(preferred: &str, available: &str) -> String {
    format!(r#"{{"cpu:0":[[{preferred}],[{available}]]}}"#)
}

#[test]
fn requests_go_over_the_nics_that_the_caller_names_while_they_work() {
    let name = "requests_go_over_the_nics_that_the_caller_names_while_they_work";
    let control = std::env::temp_dir().join(format!("te-named-{}", std::process::id()));
    let environment =
        [("SIMVERBS_DEVICES", "sim0,sim1,sim2,sim3,sim4"), ("SIMVERBS_CTL", control.to_str().unwrap())];
    if apart(name, &environment) {
        let _ = std::fs::remove_file(control);
        return;
    }
    let order = |text: &str| {
        let file = std::env::var("SIMVERBS_CTL").unwrap();
        std::fs::write(format!("{file}.new"), format!("{text}\n")).unwrap();
        std::fs::rename(format!("{file}.new"), file).unwrap();
    };
    // sim2 is for failures only, and no row has sim3.
    let rows = matrix(r#""sim0","sim1""#, r#""sim2""#).replace('}', r#","cpu:1":[["sim3"],[]]}"#);
    let (from, to) = (Node::over(&rows), Node::new("sim4"));
    let count = COUNT as u64;
    for nic in ["sim1", "sim2", "sim3"] {
        write(&from, &to, Some(nic)).unwrap();
        assert_eq!(carried(&from, nic), count, "{}", from.engine.show_links(false));
        assert_eq!(carried(&from, "sim0"), 0);
    }
    write(&from, &to, Some(" sim1 , sim2,")).unwrap();
    assert_eq!(carried(&from, "sim1") + carried(&from, "sim2"), 3 * count);
    assert_eq!((carried(&from, "sim0"), carried(&from, "sim3")), (0, count));
    // Others follow the matrix.
    let before = ["sim2", "sim3"].map(|nic| carried(&from, nic));
    write(&from, &to, None).unwrap();
    assert_eq!(["sim2", "sim3"].map(|nic| carried(&from, nic)), before);
    for (names, word) in [("sim9", "'sim9'"), ("sim1,sim4", "'sim4'"), (",", "none is named")] {
        let error = write(&from, &to, Some(names)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        let listed = ["sim0", "sim1", "sim2", "sim3"].iter().all(|nic| error.text().contains(nic));
        assert!(listed && error.text().contains(word), "{error}");
    }
    // One that is down is not waited for.
    let state = |nic: &str| {
        let links = from.links();
        let nics = links["local_nics"].as_array().unwrap().clone();
        nics.iter().find(|known| known["device"] == nic).unwrap()["state"].as_str().unwrap().to_string()
    };
    order("port sim3 down");
    soon("sim3 is down", || state("sim3") != "active");
    write(&from, &to, Some("sim3")).unwrap();
    assert_eq!(carried(&from, "sim3"), count);
    order("port sim3 up");
    soon("sim3 is up", || state("sim3") == "active");
    soon("it is used again", || {
        write(&from, &to, Some("sim3")).unwrap();
        carried(&from, "sim3") > count
    });
}

#[test]
fn requests_that_fail_on_the_named_nic_go_over_another_one() {
    let name = "requests_that_fail_on_the_named_nic_go_over_another_one";
    let control = std::env::temp_dir().join(format!("te-named-fails-{}", std::process::id()));
    let environment = [("SIMVERBS_DEVICES", "sim0,sim1,sim2"), ("SIMVERBS_CTL", control.to_str().unwrap())];
    if apart(name, &environment) {
        let _ = std::fs::remove_file(control);
        return;
    }
    std::fs::write(std::env::var("SIMVERBS_CTL").unwrap(), "error sim1 1000 RETRY_EXC_ERR\n").unwrap();
    let (from, to) = (Node::over(&matrix(r#""sim0","sim1""#, "")), Node::new("sim2"));
    for _ in 0..3 {
        write(&from, &to, Some("sim1")).unwrap();
    }
    assert!(carried(&from, "sim0") > 0, "{}", from.engine.show_links(false));
}
