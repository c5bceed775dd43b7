//! `showLinks` and `getNicLoadStats`: what connects this engine to others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{json, Value};

use super::batch::Batch;
use super::traffic::{Peers, Traffic};
use super::{label, tally, Engine};
use crate::topology::{self, Matrix};
use crate::transport::report::{NicReport, RailReport};
use crate::transport::Transport;

/// What stands for an empty list of NICs, in upstream's words.
const NO_NICS: &str = "  (no RDMA devices found)";

/// A NIC in use and the NUMA node it is attached to, -1 if that is not known.
type Nic = (NicReport, i32);

/// What is shown.
struct Shown {
    nics: Vec<Nic>,
    rails: Vec<RailReport>,
    matrix: Matrix,
    fallbacks: Vec<(&'static str, u64)>,
}

/// How much an engine has to do.
pub struct Load {
    /// That are allocated.
    pub batches: usize,
    /// Tasks that have not ended.
    pub waiting: usize,
    /// That are registered.
    pub regions: usize,
    /// That are open, or linger.
    pub segments: usize,
}

impl Engine {
    /// Its name in metrics: the segment name, with a number behind it if an engine that was there before has the same one.
    pub fn label(&self) -> &str {
        self.label.get().unwrap_or(&self.local.name)
    }

    /// Takes a label that none of `others` has. It stays the same when they go: a counter must not change its name.
    pub fn distinguish(&self, others: &[Arc<Engine>]) {
        let taken = |label: &str| others.iter().any(|other| other.label() == label);
        let _ = self.label.set(label::distinct(&self.local.name, taken));
    }

    /// The NICs that installed transports use.
    pub fn nics(&self) -> Vec<NicReport> {
        self.transports().all().iter().flat_map(|transport| transport.nics()).collect()
    }

    /// Calls `each` with every batch that is allocated.
    pub fn each_batch(&self, mut each: impl FnMut(&Batch)) {
        let each = RefCell::new(&mut each);
        self.batches.for_each(|batch| (each.borrow_mut())(batch));
    }

    /// How much it has to do.
    pub fn occupation(&self) -> Load {
        let (mut batches, mut waiting) = (0, 0);
        self.each_batch(|batch| {
            batches += 1;
            waiting += batch.waiting();
        });
        let (regions, segments) = (self.local.registry.count(), self.segments.count());
        Load { batches, waiting, regions, segments }
    }

    /// What was moved to and from each peer, as far as `MC_TE_METRIC_PEERS` allows.
    pub fn traffic(&self) -> Vec<(String, Traffic)> {
        tally::by_peer(self.segments.peers(), |each| self.each_batch(each))
    }

    /// What is under way and waits, by transport, peer and local end; peers as [`Engine::traffic`] calls them.
    pub fn queues(&self) -> BTreeMap<(&'static str, String, String), (usize, usize)> {
        let names = self.segments.peers().names();
        let mut all = BTreeMap::new();
        for transport in self.transports().all() {
            for queue in transport.queues() {
                let peer = Peers::label(&names, &queue.peer).to_string();
                let sum = all.entry((transport.name(), peer, queue.queue)).or_insert((0, 0));
                *sum = (sum.0 + queue.under_way, sum.1 + queue.waiting);
            }
        }
        all
    }

    /// What each installed transport has counted, and what the engine has of all of them.
    pub fn counters(&self) -> Vec<(&'static str, Vec<(&'static str, u64)>)> {
        let transports = self.transports();
        let of_one = |transport: &Arc<dyn Transport>| (transport.name(), transport.stats());
        let own = std::iter::once(("", transports.stats().to_vec()));
        transports.all().iter().map(of_one).chain(own).collect()
    }

    /// Local NICs, rails, topology, and the fall-backs counted so far if there were any.
    pub fn show_links(&self, as_json: bool) -> String {
        let shown = self.shown();
        if as_json {
            shown.json().to_string()
        } else {
            shown.text()
        }
    }

    /// The same as JSON, with the engine's name in metrics and its queues, as [`Engine::queues`].
    pub fn links(&self) -> Value {
        let queues = self.queues().into_iter().map(|((transport, peer, queue), (under_way, waiting))| {
            json!({
                "transport": transport, "peer": peer, "queue": queue, "under_way": under_way, "waiting": waiting,
            })
        });
        json!({ "engine": self.label(), "links": self.shown().json(), "queues": queues.collect::<Vec<_>>() })
    }

    fn shown(&self) -> Shown {
        let node = |nic: &NicReport| topology::Nic::read(&topology::Root::default(), &nic.name).numa;
        let numa = |nic: &NicReport| node(nic).and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        let nics = self.nics().into_iter().map(|nic| (numa(&nic), nic)).map(|(numa, nic)| (nic, numa));
        let nics = nics.collect();
        let transports = self.transports().all();
        let rails = transports.iter().flat_map(|transport| transport.rails()).collect();
        let stats = transports.iter().flat_map(|transport| transport.stats());
        let fallbacks = stats.chain(self.transports().stats());
        let fallbacks =
            fallbacks.filter(|(name, count)| name.starts_with("fallback") && *count > 0).collect();
        Shown { nics, rails, matrix: self.topology(), fallbacks }
    }
}

impl Shown {
    fn json(&self) -> Value {
        let mut local: Vec<Value> = self.nics.iter().map(nic_json).collect();
        if self.nics.is_empty() {
            local.extend(self.matrix.names().iter().map(|name| listed_nic_json(name)));
        }
        let mut links = json!({ "local_nics": local, "topology": self.matrix.to_value() });
        if !self.rails.is_empty() {
            links["rails"] = self.rails.iter().map(rail_json).collect();
        }
        if !self.fallbacks.is_empty() {
            let counts = self.fallbacks.iter().map(|(name, count)| (name.to_string(), json!(count)));
            links["fallbacks"] = counts.collect::<Value>();
        }
        links
    }

    fn text(&self) -> String {
        let mut lines = vec!["=== Local NICs ===".to_string()];
        lines.extend(self.nics.iter().map(nic_line));
        if self.nics.is_empty() {
            let listed = self.matrix.names();
            lines.extend(listed.iter().map(|name| format!("  {name}: in the topology; not in use")));
            if listed.is_empty() {
                lines.push(NO_NICS.into());
            }
        }
        let mut section = |title: &str, content: Vec<String>| {
            if !content.is_empty() {
                lines.push(format!("\n=== {title} ==="));
                lines.extend(content);
            }
        };
        section("Rails", self.rails.iter().map(rail_line).collect());
        let row = |row: &topology::Row| {
            let (preferred, available) = (row.preferred.join(", "), row.available.join(", "));
            format!("  {} -> preferred: [{preferred}]  available: [{available}]", row.location)
        };
        section("Topology (NIC Selection)", self.matrix.rows().iter().map(row).collect());
        let fallback = |(name, count): &(&str, u64)| format!("  {name}: {count}");
        section("Fall-backs", self.fallbacks.iter().map(fallback).collect());
        lines.push(String::new());
        lines.join("\n")
    }
}

fn nic_json((nic, numa): &Nic) -> Value {
    json!({
        "device": nic.name,
        "numa": numa,
        "gid": nic.gid,
        "gid_index": nic.gid_index,
        "port": nic.port,
        "speed_gbps": nic.speed_gbps,
        "source": nic.source,
        "state": state_of(nic),
        "inflight_bytes": nic.inflight_bytes,
        "bandwidth_bps": nic.bandwidth_bps,
        "last_error": nic.last_error,
    })
}

/// A NIC of the topology that no transport uses.
fn listed_nic_json(name: &str) -> Value {
    json!({
        "device": name, "numa": -1, "gid": "", "gid_index": -1, "port": 0, "speed_gbps": 0, "source": "topology",
    })
}

fn rail_json(rail: &RailReport) -> Value {
    json!({
        "device": rail.local,
        "peer": rail.peer,
        "state": rail.state,
        "inflight_bytes": rail.inflight_bytes,
        "waiting": rail.waiting,
        "completed": rail.completed,
        "failures": rail.failures,
        "last_error": rail.last_error,
    })
}

fn state_of(nic: &NicReport) -> &'static str {
    if nic.active {
        "active"
    } else {
        "down"
    }
}

fn nic_line((nic, numa): &Nic) -> String {
    format!(
        "  {}: {}, port {}, gid {} (index {}), numa {}, {} Gbit/s, {} bytes under way{}",
        nic.name,
        state_of(nic),
        nic.port,
        nic.gid,
        nic.gid_index,
        numa,
        nic.speed_gbps,
        nic.inflight_bytes,
        last(&nic.last_error)
    )
}

fn rail_line(rail: &RailReport) -> String {
    format!(
        "  {} -> {}: {}, {} slices done, {} attempts failed, {} waiting, {} bytes under way{}",
        rail.local,
        rail.peer,
        rail.state,
        rail.completed,
        rail.failures,
        rail.waiting,
        rail.inflight_bytes,
        last(&rail.last_error)
    )
}

fn last(error: &str) -> String {
    if error.is_empty() {
        String::new()
    } else {
        format!("; last error: {error}")
    }
}

#[cfg(test)]
mod tests;
