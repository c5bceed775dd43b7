//! Which NIC to use for memory at a location: the rules of the matrix, prepared so that a slice costs no allocation
//! and no comparison of names.

use std::collections::{BTreeMap, HashMap};

use super::location::{part, Location};
use super::matrix::Matrix;
use super::order::hca_order;

/// Names that other builds of upstream give to device memory; peer affinity holds for these rows only.
const GPU_PREFIXES: [&str; 7] = ["cuda:", "hip:", "musa:", "maca:", "mlu:", "npu:", "supa:"];

/// A row; valid in the selector that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowId(usize);

impl RowId {
    /// Its number, below the selector's `row_count`.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The row `*`, made of every NIC.
const ANY: RowId = RowId(0);

/// A matrix resolved against a list of devices: rows of indexes into that list.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// `*` first, then by location.
    rows: Vec<Row>,
    devices: HashMap<String, usize>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    location: String,
    is_gpu: bool,
    preferred: Vec<usize>,
    available: Vec<usize>,
}

impl Selector {
    /// Resolves `matrix`; NICs that are not in `devices` are left out. The row `*` prefers every NIC of the matrix, in
    /// upstream's order, whatever the matrix itself says of `*`. A matrix without rows stands for all of `devices`;
    /// one whose rows are empty does not, because that is how a peer reports NICs that died.
    pub fn new(matrix: &Matrix, devices: &[String]) -> Self {
        let mut index_of = HashMap::new();
        for (index, name) in devices.iter().enumerate() {
            index_of.entry(name.clone()).or_insert(index);
        }
        let indexes =
            |names: &[String]| names.iter().filter_map(|name| index_of.get(name).copied()).collect();
        let all = if matrix.rows().is_empty() { devices.to_vec() } else { hca_order(matrix) };
        let mut rows = vec![Row { location: "*".into(), preferred: indexes(&all), ..Row::default() }];
        rows.extend(matrix.rows().iter().filter(|row| row.location != "*").map(|row| Row {
            location: row.location.clone(),
            is_gpu: GPU_PREFIXES.iter().any(|prefix| row.location.starts_with(prefix)),
            preferred: indexes(&row.preferred),
            available: indexes(&row.available),
        }));
        Selector { rows, devices: index_of }
    }

    /// Number of rows, at least 1 for `*`.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The row of `location`, or `*` if there is none or it has no NIC. Meant for registration: it searches by name.
    pub fn row(&self, location: &str) -> RowId {
        let named = self.rows.get(1..).unwrap_or_default();
        match named.binary_search_by(|row| row.location.as_str().cmp(location)) {
            Ok(index) if named[index].len() > 0 => RowId(index + 1),
            _ => ANY,
        }
    }

    /// The rows of `location`, which are several if it is cut into parts.
    pub fn place(&self, location: &Location) -> Placement {
        Placement(match location {
            Location::Whole(name) => vec![self.row(name)],
            Location::Segments { nodes, .. } => {
                nodes.iter().map(|node| self.row(&format!("cpu:{node}"))).collect()
            }
        })
    }

    /// Devices to use first.
    pub fn preferred(&self, row: RowId) -> &[usize] {
        self.rows.get(row.0).map_or(&[], |row| &row.preferred)
    }

    /// Devices to use when those fail.
    pub fn available(&self, row: RowId) -> &[usize] {
        self.rows.get(row.0).map_or(&[], |row| &row.available)
    }

    /// The device called `name`, if `row` has it in either list. With `MC_ENABLE_DEST_DEVICE_AFFINITY` it comes first.
    pub fn named(&self, row: RowId, name: &str) -> Option<usize> {
        let device = self.devices.get(name)?;
        (self.preferred(row).contains(device) || self.available(row).contains(device)).then_some(*device)
    }

    /// Those of `names` that the row of a GPU prefers, in the order of `names`; none in any other row. With
    /// `MC_ENABLE_HCA_PEER_AFFINITY` they come first.
    pub fn near_gpu(&self, row: RowId, names: &[String]) -> Vec<usize> {
        let Some(row) = self.rows.get(row.0).filter(|row| row.is_gpu) else { return Vec::new() };
        let devices = names.iter().filter_map(|name| self.devices.get(name).copied());
        devices.filter(|device| row.preferred.contains(device)).collect()
    }
}

impl Row {
    fn len(&self) -> usize {
        self.preferred.len() + self.available.len()
    }
}

/// The rows of one registered region, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement(Vec<RowId>);

impl Placement {
    /// The row of the byte at `offset` of a region of `length` bytes.
    #[inline]
    pub fn at(&self, offset: u64, length: u64) -> RowId {
        // Nearly always; and dividing takes longer than all the rest.
        if let [only] = self.0[..] {
            return only;
        }
        self.0.get(part(offset, length, self.0.len())).copied().unwrap_or(ANY)
    }
}

/// Reads `MC_NIC_PEER_AFFINITY`, `local=peer[,peer];…`: for each local NIC the peer's NICs to prefer, in order. Rules
/// without a local name or without peers are skipped; of two rules for one NIC the later holds. The second value
/// has a sentence for each of these.
pub fn parse_peer_affinity(text: &str) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let mut rules = BTreeMap::new();
    let mut warnings = Vec::new();
    for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
        let (local, peers) = rule.split_once('=').unwrap_or((rule, ""));
        let local = local.trim();
        let names = peers.split(',').map(str::trim).filter(|peer| !peer.is_empty());
        let peers: Vec<String> = names.map(String::from).collect();
        if local.is_empty() || peers.is_empty() || peers.iter().any(|peer| peer.contains('=')) {
            warnings.push(format!("rule '{rule}' is skipped: it is not local=peer[,peer]"));
        } else if rules.insert(local.to_string(), peers).is_some() {
            warnings.push(format!("rule '{rule}' replaces an earlier one for {local}"));
        }
    }
    (rules, warnings)
}

#[cfg(test)]
mod tests;
