//! `showLinks` and `getNicLoadStats`: what connects this engine to others.

use serde_json::{json, Value};

use super::transports::PROTOCOLS;
use super::Engine;
use crate::topology::{self, Matrix};

/// A local NIC that a transport uses.
pub struct Nic {
    /// Device name.
    pub name: String,
    /// NUMA node it is attached to; -1 if that is not known.
    pub numa: i32,
    /// GID that peers reach it by.
    pub gid: String,
    /// Place of the GID in the port's table; -1 if that is not known.
    pub gid_index: i32,
    /// Port number.
    pub port: u8,
    /// Rate of the port, Gbit/s; 0 if that is not known.
    pub speed_gbps: u64,
    /// Usable now.
    pub active: bool,
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Measured, bytes per second.
    pub bandwidth_bps: f64,
    /// Why it is not usable, or the last failure; "" if there was none.
    pub last_error: String,
}

/// A pair of a local NIC and a peer's.
pub struct Rail {
    /// Local device name.
    pub local: String,
    /// The peer's NIC path.
    pub peer: String,
    /// One word.
    pub state: &'static str,
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Slices that wait for room or for the connection.
    pub waiting: usize,
    /// Slices completed.
    pub completed: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The last failure; "" if there was none.
    pub last_error: String,
}

/// What is shown.
struct Shown {
    nics: Vec<Nic>,
    rails: Vec<Rail>,
    matrix: Matrix,
    fallbacks: Vec<(&'static str, u64)>,
}

impl Engine {
    /// The NICs that installed transports use.
    pub fn nics(&self) -> Vec<Nic> {
        PROTOCOLS.iter().flat_map(|protocol| protocol.nics(self)).collect()
    }

    /// Local NICs, rails, topology, and the fall-backs counted so far if there were any.
    pub fn show_links(&self, as_json: bool) -> String {
        let mut nics = self.nics();
        for nic in &mut nics {
            let node = topology::Nic::read(&topology::Root::default(), &nic.name).numa;
            nic.numa = node.and_then(|node| i32::try_from(node).ok()).unwrap_or(-1);
        }
        let rails = PROTOCOLS.iter().flat_map(|protocol| protocol.rails(self.transports())).collect();
        let stats = self.transports().all().into_iter().flat_map(|transport| transport.stats());
        let fallbacks = stats.chain(self.transports().stats());
        let fallbacks =
            fallbacks.filter(|(name, count)| name.starts_with("fallback") && *count > 0).collect();
        let shown = Shown { nics, rails, matrix: self.topology(), fallbacks };
        if as_json {
            shown.json().to_string()
        } else {
            shown.text()
        }
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
                lines.push("  (no RDMA devices found)".into());
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

fn nic_json(nic: &Nic) -> Value {
    json!({
        "device": nic.name,
        "numa": nic.numa,
        "gid": nic.gid,
        "gid_index": nic.gid_index,
        "port": nic.port,
        "speed_gbps": nic.speed_gbps,
        "source": "rdma_transport",
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

fn rail_json(rail: &Rail) -> Value {
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

fn state_of(nic: &Nic) -> &'static str {
    if nic.active {
        "active"
    } else {
        "down"
    }
}

fn nic_line(nic: &Nic) -> String {
    format!(
        "  {}: {}, port {}, gid {} (index {}), numa {}, {} Gbit/s, {} bytes under way{}",
        nic.name,
        state_of(nic),
        nic.port,
        nic.gid,
        nic.gid_index,
        nic.numa,
        nic.speed_gbps,
        nic.inflight_bytes,
        last(&nic.last_error)
    )
}

fn rail_line(rail: &Rail) -> String {
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
