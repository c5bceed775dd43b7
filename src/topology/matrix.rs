//! The NIC priority matrix: for each storage type the NICs to prefer and those that also work.

use std::collections::HashSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::json;
use crate::runtime::headroom;

/// What there may be no memory for.
const WHAT: &str = "the NIC priority matrix";
/// What a NIC's name takes in a list. Counted: its place there, and the least that the allocator gives.
const NAME_BYTES: usize = 56;

/// NICs for one storage type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Storage type (location), for example `cpu:0`.
    pub location: String,
    /// NICs to use first.
    pub preferred: Vec<String>,
    /// NICs to use when those fail.
    pub available: Vec<String>,
}

/// Rows in byte order of their location, one per location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    rows: Vec<Row>,
}

impl Matrix {
    /// Reads `{"cpu:0": [["preferred"], ["available"]], ...}`; `null` and `{}` are empty. Empty text,
    /// non-JSON, a non-object, and a row that is not two arrays of strings are `ERR_MALFORMED_JSON`; `ERR_MEMORY` if it does
    /// not fit.
    pub fn parse(text: &str) -> Result<Self> {
        let value = json::parse(text.as_bytes()).map_err(|e| e.context("NIC priority matrix"))?;
        Self::from_value(&value)
    }

    /// The same from a value that was already read.
    pub fn from_value(value: &Value) -> Result<Self> {
        let map = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(map) => map,
            _ => return Err(malformed("it is not an object of rows")),
        };
        let mut rows = Vec::new();
        rows.try_reserve_exact(map.len()).map_err(|_| Error::out_of_memory(WHAT))?;
        for (location, row) in map {
            rows.push(parse_row(location, row)?);
        }
        // A map has each location once; a stable sort would allocate.
        rows.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(Matrix { rows })
    }

    /// The matrix of `rows` in any order; of several with one location the last is kept.
    pub fn from_rows(rows: Vec<Row>) -> Self {
        let mut rows: Vec<Row> = rows.into_iter().rev().collect();
        rows.sort_by(|a, b| a.location.cmp(&b.location));
        rows.dedup_by(|later, first| later.location == first.location);
        Matrix { rows }
    }

    /// One row, which prefers all of `names`. It is called `cpu:0`, because `*` belongs to the reader of a matrix.
    pub fn single(names: &[String]) -> Self {
        let row = Row { location: "cpu:0".into(), preferred: names.to_vec(), available: Vec::new() };
        Matrix { rows: vec![row] }
    }

    /// The same rows without the NICs of `dead`. A row that loses all its NICs stays, empty.
    pub fn without(&self, dead: &[String]) -> Self {
        let alive =
            |names: &[String]| names.iter().filter(|name| !dead.contains(name)).cloned().collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| Row {
            location: row.location.clone(),
            preferred: alive(&row.preferred),
            available: alive(&row.available),
        });
        Matrix { rows: rows.collect() }
    }

    /// Every NIC once, in order of first appearance in the sorted rows, preferred before available.
    pub fn names(&self) -> Vec<String> {
        first_appearances(self.rows.iter())
    }

    /// The rows, sorted by location.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The descriptor's `priority_matrix`: null when there is no row.
    pub fn to_value(&self) -> Value {
        if self.rows.is_empty() {
            return Value::Null;
        }
        let names = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect());
        let members = self.rows.iter().map(|row| {
            let lists = vec![names(&row.preferred), names(&row.available)];
            (row.location.clone(), Value::Array(lists))
        });
        Value::Object(members.collect::<Map<_, _>>())
    }
}

/// The JSON text that `parse` reads.
impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json::write(&self.to_value()))
    }
}

/// Every NIC of `rows` once, in order of first appearance.
pub(super) fn first_appearances<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = rows.flat_map(|row| row.preferred.iter().chain(&row.available));
    names.filter(|name| seen.insert(name.as_str())).cloned().collect()
}

fn parse_row(location: &str, row: &Value) -> Result<Row> {
    let bad = |why: &str| malformed(format!("row '{location}' {why}"));
    let Some([preferred, available]) = row.as_array().map(Vec::as_slice) else {
        return Err(bad("is not an array of two lists, preferred and available NICs"));
    };
    let names = |list: &Value| {
        let items = list.as_array().ok_or_else(|| bad("has a list that is not an array"))?;
        headroom::check(items.len() * NAME_BYTES, WHAT)?;
        let mut names = Vec::new();
        names.try_reserve_exact(items.len()).map_err(|_| Error::out_of_memory(WHAT))?;
        for item in items {
            let name = item.as_str().ok_or_else(|| bad("has a NIC name that is not a string"))?;
            names.push(headroom::copy(name, WHAT)?);
        }
        Ok(names)
    };
    let (preferred, available) = (names(preferred)?, names(available)?);
    Ok(Row { location: headroom::copy(location, WHAT)?, preferred, available })
}

fn malformed(why: impl fmt::Display) -> Error {
    Error::new(Code::MalformedJson, format!("NIC priority matrix: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"cpu:0":[["mlx5_0"],["mlx5_1"]],"cuda:0":[["mlx5_0"],[]]}"#;

    #[test]
    fn rows_are_sorted_and_the_text_round_trips() {
        let text = r#"{"cuda:0":[["mlx5_0"],[],],"cpu:0":[["mlx5_0"],["mlx5_1"]]} // mine"#;
        let matrix = Matrix::parse(text).unwrap();
        let locations: Vec<_> = matrix.rows().iter().map(|row| row.location.as_str()).collect();
        assert_eq!(locations, ["cpu:0", "cuda:0"]);
        assert_eq!(matrix.rows()[0].available, ["mlx5_1"]);
        assert_eq!(matrix.to_string(), TEXT);
        assert_eq!(Matrix::from_value(&matrix.to_value()).unwrap(), matrix);
    }

    #[test]
    fn names_come_in_order_of_first_appearance_and_dead_ones_leave_empty_rows() {
        let text = r#"{"cuda:0":[["c"],["a"]],"cpu:1":[["b","b"],["a"]],"cpu:0":[[],["a"]]}"#;
        let matrix = Matrix::parse(text).unwrap();
        assert_eq!(matrix.names(), ["a", "b", "c"]);
        let rest = matrix.without(&["a".into(), "b".into(), "x".into()]);
        assert_eq!(rest.to_string(), r#"{"cpu:0":[[],[]],"cpu:1":[[],[]],"cuda:0":[["c"],[]]}"#);
        assert_eq!(rest.names(), ["c"]);
        assert_eq!(Matrix::single(&["b".into(), "a".into()]).to_string(), r#"{"cpu:0":[["b","a"],[]]}"#);
    }

    #[test]
    fn of_rows_with_one_location_the_last_is_kept() {
        let row = |location: &str, nic: &str| Row {
            location: location.into(),
            preferred: vec![nic.into()],
            available: Vec::new(),
        };
        let matrix = Matrix::from_rows(vec![row("b", "1"), row("a", "2"), row("b", "3"), row("b", "4")]);
        assert_eq!(matrix.to_string(), r#"{"a":[["2"],[]],"b":[["4"],[]]}"#);
    }

    #[test]
    fn null_and_the_empty_object_are_empty() {
        for text in ["null", "{}"] {
            let matrix = Matrix::parse(text).unwrap();
            assert!(matrix.rows().is_empty() && matrix.to_value().is_null());
        }
    }

    #[test]
    fn malformed_texts_are_refused_and_the_bad_row_is_named() {
        for text in ["", " ", "{", "mlx5_0", "[]", "\"x\"", "1"] {
            assert_eq!(Matrix::parse(text).unwrap_err().code(), Code::MalformedJson, "{text}");
        }
        for row in
            ["[[]]", "[[],[],[]]", "[]", "{}", "null", "[\"a\",\"b\"]", "[[1],[]]", "[[],[null]]", "[{},[]]"]
        {
            let error = Matrix::parse(&format!(r#"{{"cpu:0":[[],[]],"cpu:7":{row}}}"#)).unwrap_err();
            assert_eq!(error.code(), Code::MalformedJson, "{row}");
            assert!(error.text().contains("cpu:7"), "{error}");
        }
    }
}
