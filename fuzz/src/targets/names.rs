//! Names, addresses, locations and lists of NICs, which callers and settings give as text.

use std::sync::Arc;

use serde_json::Value;
use transfer_engine::config::Config;
use transfer_engine::host_port;
use transfer_engine::metadata::{self, Own};
use transfer_engine::topology::location::Location;
use transfer_engine::topology::order::hca_order;
use transfer_engine::topology::select::{parse_peer_affinity, Selector};
use transfer_engine::topology::{Filter, Matrix};
use transfer_engine::transport::{incarnation, rdma};

use super::memory::bounded;

/// A matrix of NICs is held as JSON and as lists, and its names are compared in the order that upstream walks them.
const PER_BYTE: usize = 2048;

/// What is written of a name that was read is read as the same, and no message repeats a password.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    bounded(bytes, PER_BYTE, || {
        address(&text);
        let id = incarnation::unhex(&text);
        assert!(id.is_none_or(|id| incarnation::hex(&id).eq_ignore_ascii_case(&text)));
        let gid = rdma::fuzz::gid(&text);
        assert_eq!(gid.as_deref().and_then(rdma::fuzz::gid), gid);
        let (text, devices) = text.split_once('\n').unwrap_or((&text, ""));
        matrix(text, &Filter::parse("input", devices).names);
        let (rules, warnings) = parse_peer_affinity(text);
        assert!(rules.len() + warnings.len() <= text.split(';').count());
        assert!(rules.iter().all(|(local, peers)| !local.is_empty() && !peers.is_empty()));
    });
    store(&text);
}

fn address(text: &str) {
    let loose = host_port::parse(text, 12001);
    // A name with a colon that is no address cannot be told from one with a port; nobody has such a name.
    if !loose.host.contains(':') || host_port::is_ipv6(&loose.host) {
        assert_eq!(host_port::parse(&loose.to_string(), 1), loose);
    }
    let Ok(strict) = host_port::parse_strictly(text, 12001) else { return };
    assert_eq!(strict, loose);
    assert_ne!(strict.port, 0);
    assert_eq!(host_port::parse_strictly(&strict.to_string(), 1), Ok(strict));
}

fn matrix(text: &str, devices: &[String]) {
    let location = Location::parse(text);
    if let Location::Segments { nodes, .. } = &location {
        assert!(!nodes.is_empty());
    }
    let Ok(matrix) = Matrix::parse(text) else { return };
    assert_eq!(Matrix::parse(&matrix.to_string()).unwrap(), matrix);
    let names = matrix.names();
    let mut order = hca_order(&matrix);
    order.sort();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(order, sorted);
    assert!(matrix.without(&names).names().is_empty());
    let devices = if devices.is_empty() { &names } else { devices };
    let selector = Selector::new(&matrix, devices);
    let rows = matrix.rows().iter().map(|row| row.location.as_str());
    for place in rows.chain([text]) {
        let row = selector.row(place);
        assert!(row.index() < selector.row_count());
        let mut found = selector.preferred(row).iter().chain(selector.available(row));
        assert!(found.all(|device| *device < devices.len()));
        let _ = (selector.near_gpu(row, devices), selector.named(row, text));
        for (offset, length) in [(0, 0), (u64::MAX, 1), (4096, u64::MAX)] {
            assert!(
                selector.place(&Location::parse(place)).at(offset, length).index() < selector.row_count()
            );
        }
    }
}

/// A connection string, of any store; nothing is connected. Certificates are left out, since reading them takes long.
fn store(text: &str) {
    if text.starts_with("https") {
        return;
    }
    let own = Own { incarnation: String::new(), descriptor: Arc::new(|| Value::Null) };
    match metadata::open(text, &Config::default(), own) {
        Ok(store) => drop(store.place("segment")),
        Err(error) => {
            let password = ":secret@";
            let shown = error.to_string();
            let is_told = text.matches("secret").count() == 1 && text.contains(password);
            assert!(!is_told || !shown.contains("secret"), "{shown}");
        }
    }
}
