//! Typed look at the members of a JSON object that a peer sent: a missing or null member is the default, a
//! wrong type is `ERR_MALFORMED_JSON` with a sentence that names the member.

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::runtime::headroom;

/// The members of one object.
pub struct Members<'a>(&'a Map<String, Value>);

impl<'a> Members<'a> {
    /// The members of `value`, called `what` in the error if it is no object.
    pub fn of(value: &'a Value, what: &str) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Members(map)),
            other => {
                Err(Error::new(Code::MalformedJson, format!("{what} is {}, not an object", type_of(other))))
            }
        }
    }

    /// The members of `map`.
    pub fn from(map: &'a Map<String, Value>) -> Self {
        Members(map)
    }

    /// The member `name`, unless it is missing or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A string; "" if missing.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        match self.get(name) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(wrong(name, other, "a string")),
        }
    }

    /// A copy of a string; "" if missing. `ERR_MEMORY` if it does not fit.
    pub fn owned_text(&self, name: &str) -> Result<String> {
        headroom::copy(self.text(name)?, name)
    }

    /// A string that is neither missing nor empty.
    pub fn filled_text(&self, name: &str) -> Result<&'a str> {
        match self.text(name)? {
            "" => Err(Error::new(Code::MalformedJson, format!("member '{name}' is missing or empty"))),
            text => Ok(text),
        }
    }

    /// A copy of a string, or `None` if it is missing or empty. `ERR_MEMORY` if it does not fit.
    pub fn optional_text(&self, name: &str) -> Result<Option<String>> {
        self.owned_text(name).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    /// A whole number from 0 to the largest of `T`.
    pub fn uint<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>> {
        self.get(name).map(|value| whole(name, value)).transpose()
    }

    /// A boolean.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong(name, other, "a boolean")),
        }
    }

    /// An array; empty if missing.
    pub fn array(&self, name: &str) -> Result<&'a [Value]> {
        match self.get(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong(name, other, "an array")),
        }
    }

    /// An array of whole numbers from 0 to the largest of `T`; empty if missing. `ERR_MEMORY` if it does
    /// not fit.
    pub fn uints<T: TryFrom<u64>>(&self, name: &str) -> Result<Vec<T>> {
        let items = self.array(name)?;
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(items.len()).map_err(|_| Error::out_of_memory(name))?;
        for item in items {
            numbers.push(whole(name, item)?);
        }
        Ok(numbers)
    }
}

fn whole<T: TryFrom<u64>>(name: &str, value: &Value) -> Result<T> {
    let number = value.as_u64().ok_or_else(|| wrong(name, value, "a whole number that is not negative"))?;
    T::try_from(number).map_err(|_| {
        let bits = 8 * std::mem::size_of::<T>();
        Error::new(
            Code::MalformedJson,
            format!("member '{name}' is {number}, which needs more than {bits} bits"),
        )
    })
}

fn wrong(name: &str, value: &Value, expected: &str) -> Error {
    Error::new(Code::MalformedJson, format!("member '{name}' holds {}, not {expected}", type_of(value)))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "another number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
