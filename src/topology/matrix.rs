//! The NIC priority matrix: for each storage type the NICs to prefer and those that also work.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::json;

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
    /// non-JSON, a non-object, and a row that is not two arrays of strings are `ERR_MALFORMED_JSON`.
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
        rows.try_reserve_exact(map.len()).map_err(|_| Error::out_of_memory("the NIC priority matrix"))?;
        for (location, row) in map {
            rows.push(parse_row(location, row)?);
        }
        rows.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(Matrix { rows })
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

fn parse_row(location: &str, row: &Value) -> Result<Row> {
    let bad = |why: &str| malformed(format!("row '{location}' {why}"));
    let Some([preferred, available]) = row.as_array().map(Vec::as_slice) else {
        return Err(bad("is not an array of two lists, preferred and available NICs"));
    };
    let names = |list: &Value| {
        let items = list.as_array().ok_or_else(|| bad("has a list that is not an array"))?;
        let name = |item: &Value| item.as_str().map(String::from);
        items
            .iter()
            .map(name)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad("has a NIC name that is not a string"))
    };
    Ok(Row { location: location.to_string(), preferred: names(preferred)?, available: names(available)? })
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
