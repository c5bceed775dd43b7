//! `showLinks`: what connects this engine to others, as text or JSON.

use serde_json::{json, Value};

use super::Engine;

impl Engine {
    /// Local NICs, topology, and the fall-backs counted so far if there were any.
    pub fn show_links(&self, as_json: bool) -> String {
        let matrix = self.install.lock().clone();
        let fallbacks: Vec<(&str, u64)> = self
            .transports()
            .iter()
            .flat_map(|transport| transport.stats())
            .filter(|(name, count)| name.starts_with("fallback") && *count > 0)
            .collect();
        if as_json {
            let mut links = json!({ "local_nics": [], "topology": matrix.to_value() });
            if !fallbacks.is_empty() {
                links["fallbacks"] =
                    fallbacks.iter().map(|(name, count)| (name.to_string(), json!(count))).collect::<Value>();
            }
            return links.to_string();
        }
        let mut text = String::from("=== Local NICs ===\n  (no RDMA devices found)\n");
        if !matrix.rows().is_empty() {
            text.push_str("\n=== Topology (NIC Selection) ===\n");
            for row in matrix.rows() {
                let (preferred, available) = (row.preferred.join(", "), row.available.join(", "));
                text.push_str(&format!(
                    "  {} -> preferred: [{preferred}]  available: [{available}]\n",
                    row.location
                ));
            }
        }
        if !fallbacks.is_empty() {
            text.push_str("\n=== Fall-backs ===\n");
            for (name, count) in fallbacks {
                text.push_str(&format!("  {name}: {count}\n"));
            }
        }
        text
    }
}
