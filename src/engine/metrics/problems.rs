//! What an operator should look at, in words, and what to do about it.

use std::sync::Arc;

use super::history::Sample;
use crate::cluster_key::refusals::PORTS;
use crate::engine::Engine;
use crate::error::Class;
use crate::observe::durations::Timed;
use crate::observe::page::{shown, Level, Problem};

/// Most problems that are told one by one. Chosen: a phone shows a handful at once.
const MOST: usize = 20;

/// Words for one of [`Timed::ALL`], in its order.
pub(super) struct Kind {
    /// What it is.
    pub name: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Of each.
pub(super) const CONTROL: [Kind; Timed::ALL.len()] = [
    Kind {
        name: "Handshakes with peers",
        advice: "The log names the peer: ask it with `mte ping NAME`. It may be stopped, or its port closed to this host.",
    },
    Kind {
        name: "Operations on the metadata store",
        advice: "Transfers to known peers go on. Look whether the store runs and is reached: `mte doctor --metadata URL`.",
    },
    Kind {
        name: "Registrations of memory",
        advice: "The caller got the reason. `mte doctor` looks at this host's limits for memory.",
    },
];

/// What is wrong with peers that are refused because of the cluster key, and what to do, in the order of
/// [`CAUSES`](crate::cluster_key::refusals::CAUSES).
pub(super) const REFUSED: [Kind; crate::cluster_key::refusals::CAUSES.len()] = [
    Kind {
        name: "without the cluster key",
        advice: "The log has their addresses. Give engines of this cluster the same MC_CLUSTER_KEY; keep everybody else from these ports.",
    },
    Kind {
        name: "with another cluster key",
        advice: "The log has their addresses. MC_CLUSTER_KEY of both ends needs a key in common, and MC_CLUSTER_KEY_ADDRESSES has to be the same.",
    },
    Kind {
        name: "that did not prove the cluster key",
        advice: "The log has their addresses. Something changes what is sent, or somebody tries keys or replays what was recorded.",
    },
];

/// What to do when tasks fail with this class.
pub(super) fn advice(class: Class) -> &'static str {
    match class {
        Class::Argument => "Correct the program: it passes something wrong; mte_task_error says what.",
        Class::Resource => "Raise the limit that the log names, or do less at once; `mte doctor` looks at limits.",
        Class::Network => "Look at the link and at the peer: `mte ping NAME`, and `mte doctor` on both hosts.",
        Class::Timeout => "The peer may be stopped or overloaded: `mte ping NAME`.",
        Class::Rejected => {
            "The peer refused: its memory or settings are others than was assumed, or it was started anew; its log says why."
        }
        Class::Protocol => "Something else listens at the peer's address, or its version does not fit: `mte ping NAME`.",
        Class::Metadata => "Open the segment again; look at the store with `mte doctor --metadata URL`.",
        Class::Device => "Look at the NIC, its cable and its driver: `mte doctor`.",
        Class::Canceled => "Nothing: somebody wanted it.",
        Class::Unsupported => "This build or this machine does not have it: use another transport or store.",
        _ => "This is a fault of the library: report its log, and start the process again.",
    }
}

/// The worst first. What is counted is a problem where it rose since `before`.
pub(super) fn of(sample: &Sample, before: Option<&Sample>, engines: &[Arc<Engine>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |level, what: String, advice: &str| {
        problems.push(Problem { level, what: shown(&what), advice: advice.into() });
    };
    for engine in engines {
        let name = engine.label();
        if engine.is_broken() {
            let what = format!("{name} cannot be used any more: a call has failed inside the library.");
            add(Level::Bad, what, advice(Class::Internal));
        }
        for nic in engine.nics().into_iter().filter(|nic| !nic.active) {
            let why = if nic.last_error.is_empty() { "" } else { ": " };
            let what = format!("{name} cannot use the NIC {}{why}{}", nic.name, nic.last_error);
            add(Level::Bad, what, advice(Class::Device));
        }
    }
    let Some(before) = before else { return limited(problems) };
    for (op, (now, then)) in ["READ", "WRITE"].iter().zip(sample.ops.iter().zip(&before.ops)) {
        for (class, name) in Class::NAMES.iter().filter(|(class, _)| *class != Class::Canceled) {
            let at = *class as usize;
            let count = now.failures[at].saturating_sub(then.failures[at]);
            if count > 0 {
                let tasks = if count == 1 { "task has" } else { "tasks have" };
                let what = format!("{count} {op} {tasks} failed in the last minute (class {name}).");
                add(Level::Bad, what, advice(*class));
            }
        }
    }
    for (kind, (now, then)) in CONTROL.iter().zip(sample.control.iter().zip(&before.control)) {
        if now > then {
            add(Level::Warn, format!("{} fail: {} in the last minute.", kind.name, now - then), kind.advice);
        }
    }
    let ports = PORTS.iter().zip(sample.refused.iter().zip(&before.refused));
    for ((_, port), (now, then)) in ports {
        for (kind, (now, then)) in REFUSED.iter().zip(now.iter().zip(then)) {
            let count = now.saturating_sub(*then);
            if count > 0 {
                let peers = if count == 1 { "peer" } else { "peers" };
                let what =
                    format!("{count} {peers} {} refused at the {port} port in the last minute.", kind.name);
                add(Level::Warn, what, kind.advice);
            }
        }
    }
    for ((engine, transport, event), now) in &sample.trouble {
        let key = (engine.clone(), *transport, *event);
        let count = now.saturating_sub(before.trouble.get(&key).copied().unwrap_or(0));
        if count > 0 {
            let of = if transport.is_empty() { String::new() } else { format!(" of {transport}") };
            let what = format!("{engine} has counted {event}{of}: {count} in the last minute.");
            add(
                Level::Warn,
                what,
                "Requests may have gone a slower way or been sent again; the log says why.",
            );
        }
    }
    limited(problems)
}

fn limited(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    if let Some(more) = problems.len().checked_sub(MOST).filter(|more| *more > 0) {
        problems.truncate(MOST);
        let advice = "The tables below have all of them.".to_string();
        problems.push(Problem { level: Level::Warn, what: format!("{more} more."), advice });
    }
    problems
}
