//! The descriptor that an engine publishes about itself: how to reach it and which memory may be accessed. A document:
//! the members that every reader needs, and the rest as it stands in the text. Each transport writes and reads its own.

mod timestamp;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::json::members::Members;
use crate::runtime::headroom;

/// Member that lists the registered regions, in the form of the transport that `protocol` names.
pub const BUFFERS: &str = "buffers";
/// When the text was made. For people; no reader compares it.
const TIMESTAMP: &str = "timestamp";
/// Most elements of a list that are accepted from a peer. Chosen: a terabyte in regions of 1 MiB is as many.
const MAX_ELEMENTS: usize = 1_000_000;

/// What an element of a list has in the text at least. Counted: a buffer with short numbers.
const ELEMENT_BYTES: usize = 35;

/// What an element, as a transport reads it, owns at most beside its place in the list. Counted: a name, and the keys of
/// 16 NICs.
const OWNED_BYTES: usize = 192;
/// So many elements are read without a look at how much memory is left. Chosen: they own 1.5 MiB.
const FEW_ELEMENTS: usize = 8192;

/// A segment descriptor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentDesc {
    /// Name that the publisher wants to be called by from now on.
    pub name: String,
    /// The transport in whose form the buffers are listed.
    pub protocol: String,
    /// Random id of the publisher's start, if it is an engine of this project.
    pub incarnation: Option<String>,
    /// All other members but the time stamp. Those that no transport here knows are kept and compared too.
    pub members: Map<String, Value>,
}

impl SegmentDesc {
    /// The JSON to publish, stamped with the current time.
    pub fn encode(self) -> Value {
        let mut map = self.members;
        map.entry(BUFFERS).or_insert_with(|| Value::Array(Vec::new()));
        map.insert("name".into(), self.name.into());
        map.insert("protocol".into(), self.protocol.into());
        map.insert(TIMESTAMP.into(), timestamp::now().into());
        if let Some(incarnation) = self.incarnation {
            map.insert("incarnation".into(), incarnation.into());
        }
        Value::Object(map)
    }

    /// Reads a peer's descriptor, as far as every reader needs it. `ERR_MALFORMED_JSON` naming the member if a required
    /// one is missing or one is of the wrong type.
    pub fn decode(value: Value) -> Result<Self> {
        let members = Members::of(&value, "descriptor")?;
        let name = members.owned_text("name")?;
        let protocol = members.filled_text("protocol").and_then(|_| members.owned_text("protocol"))?;
        let incarnation = members.optional_text("incarnation")?;
        let Value::Object(mut members) = value else {
            return Err(malformed("descriptor is not an object"));
        };
        for common in ["name", "protocol", "incarnation", TIMESTAMP] {
            members.remove(common);
        }
        Ok(SegmentDesc { name, protocol, incarnation, members })
    }

    /// About how many bytes the text had that its lists were read from.
    pub fn weight(&self) -> usize {
        let lists = self.members.values().filter_map(Value::as_array);
        lists.map(|list| list.len().saturating_mul(ELEMENT_BYTES)).sum()
    }

    /// Adds or replaces a member.
    pub fn put(&mut self, member: &str, value: impl Into<Value>) {
        self.members.insert(member.into(), value.into());
    }

    /// The members to be read by their types.
    pub fn typed(&self) -> Members<'_> {
        Members::from(&self.members)
    }

    /// The elements of the list `member`, each read by `read`. `ERR_MALFORMED_JSON` naming the element that it refuses,
    /// or when there are more than a million; `ERR_MEMORY` if they do not fit.
    pub fn list<T>(&self, member: &str, read: impl Fn(&Members<'_>) -> Result<T>) -> Result<Vec<T>> {
        let members = self.typed();
        let items = members.array(member)?;
        if items.len() > MAX_ELEMENTS {
            let text = format!("{} {member} are more than the {MAX_ELEMENTS} accepted", items.len());
            return Err(malformed(text));
        }
        let mut list = Vec::new();
        let has_room = items.len() < FEW_ELEMENTS || headroom::has_room(items.len() * OWNED_BYTES);
        let reserved = list.try_reserve_exact(items.len());
        reserved.ok().filter(|()| has_room).ok_or_else(|| Error::out_of_memory(member))?;
        for (i, item) in items.iter().enumerate() {
            let one = Members::of(item, "element").and_then(|members| read(&members));
            list.push(one.map_err(|e| e.context(format_args!("{member}[{i}]")))?);
        }
        Ok(list)
    }
}

fn malformed(why: impl Into<String>) -> Error {
    Error::new(Code::MalformedJson, why.into())
}

#[cfg(test)]
mod tests;
