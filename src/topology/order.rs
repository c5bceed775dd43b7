//! In which order an upstream consumer numbers the NICs of a matrix: it walks the rows of a libstdc++
//! `unordered_map`, and uses the numbers on `devices` and `rkey` of the descriptor.
//!
//! `tests/order_check.rs` compares the model with libstdc++ itself.

use std::collections::HashSet;

use super::matrix::{first_appearances, Matrix};

/// Sizes of the bucket array as it grows, read off `bucket_count()` of libstdc++ 12. A map of more keys keeps the
/// last size here, so that its order is no longer libstdc++'s.
const BUCKETS: [usize; 19] = [
    13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172_933, 351_061, 712_697,
    1_447_153, 2_938_679, 5_967_347,
];

/// NICs in the order in which an upstream consumer numbers those of `matrix`: rows inserted by ascending location,
/// walked, each NIC at its first appearance, preferred before available.
pub fn hca_order(matrix: &Matrix) -> Vec<String> {
    let rows = matrix.rows();
    let locations: Vec<String> = rows.iter().map(|row| row.location.clone()).collect();
    first_appearances(iteration_order(&locations).into_iter().filter_map(|index| rows.get(index)))
}

/// Indexes of `keys` in the order in which a libstdc++ `unordered_map<string, …>` is walked after inserting them
/// one by one. A key that was inserted before is left out, as in the map.
pub fn iteration_order(keys: &[String]) -> Vec<usize> {
    let hashes: Vec<u64> = keys.iter().map(|key| hash(key.as_bytes())).collect();
    let mut sizes = BUCKETS.into_iter();
    let mut table = HashTable::new(sizes.next().unwrap_or(1));
    let mut seen = HashSet::new();
    for (index, key) in keys.iter().enumerate() {
        if !seen.insert(key.as_str()) {
            continue;
        }
        if seen.len() > table.buckets() {
            if let Some(size) = sizes.next() {
                let mut larger = HashTable::new(size);
                table.walk().for_each(|index| larger.insert(index, hashes[index]));
                table = larger;
            }
        }
        table.insert(index, hashes[index]);
    }
    table.walk().collect()
}

/// The map's hash table, which is one list of all keys. It consists of one run per bucket in use; a new run goes to the
/// front of the list and a new key to the front of its run, so both are kept here in the reverse order of the walk.
struct HashTable {
    runs: Vec<Vec<usize>>,
    /// Per bucket, the index of its run.
    run_of: Vec<Option<usize>>,
}

impl HashTable {
    fn new(buckets: usize) -> Self {
        HashTable { runs: Vec::new(), run_of: vec![None; buckets] }
    }

    fn buckets(&self) -> usize {
        self.run_of.len()
    }

    fn insert(&mut self, key: usize, hash: u64) {
        let bucket = (hash % self.buckets() as u64) as usize;
        match self.run_of[bucket] {
            Some(run) => self.runs[run].push(key),
            None => {
                self.run_of[bucket] = Some(self.runs.len());
                self.runs.push(vec![key]);
            }
        }
    }

    fn walk(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().rev().flat_map(|run| run.iter().rev().copied())
    }
}

/// MurmurHash2 in its 64-bit form "64A" with the seed that libstdc++ uses for strings.
fn hash(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    let fold = |word: u64| word ^ (word >> 47);
    let mut state = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        let whole = chunk.len() == 8;
        let mixed = if whole { fold(word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER) } else { word };
        state = (state ^ mixed).wrapping_mul(MULTIPLIER);
    }
    fold(fold(state).wrapping_mul(MULTIPLIER))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys in order of insertion, and the walk that was observed.
    fn check(keys: &[&str], walk: &[&str]) {
        let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        let order: Vec<&str> = iteration_order(&keys).into_iter().map(|index| keys[index].as_str()).collect();
        assert_eq!(order, walk);
    }

    #[test]
    fn recorded_walks_are_reproduced() {
        check(&[], &[]);
        check(&["cpu:0", "cpu:1"], &["cpu:1", "cpu:0"]);
        check(
            &["cpu:0", "cpu:1", "cuda:0", "cuda:1", "cuda:2", "cuda:3"],
            &["cuda:3", "cuda:2", "cuda:1", "cuda:0", "cpu:1", "cpu:0"],
        );
        let mut keys = vec!["cpu:0", "cpu:1"];
        keys.extend(["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"]);
        let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        let walk = iteration_order(&keys);
        let gpus: Vec<&str> = walk.iter().filter_map(|index| keys[*index].strip_prefix("cuda:")).collect();
        assert_eq!(gpus, ["7", "6", "4", "3", "2", "5", "1", "0"]);
    }

    #[test]
    fn a_repeated_key_is_inserted_once() {
        check(&["cpu:0", "cpu:1", "cpu:0"], &["cpu:1", "cpu:0"]);
    }

    #[test]
    fn nics_are_numbered_as_a_recorded_consumer_did() {
        let recorded = include_str!("../../tests/vectors/rdma-connection.json");
        assert!(recorded.contains("2 2 hca:mlx5_1 mlx5_0 "), "the vector changed");
        let text = r#"{"cpu:0":[["mlx5_0"],["mlx5_1"]],"cpu:1":[["mlx5_1"],["mlx5_0"]]}"#;
        let matrix = Matrix::parse(text).unwrap();
        assert_eq!(hca_order(&matrix), ["mlx5_1", "mlx5_0"]);
        assert_eq!(hca_order(&Matrix::default()), [""; 0]);
    }
}
