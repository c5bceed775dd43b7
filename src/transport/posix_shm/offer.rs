//! What upstream's descriptors say of POSIX shared memory: for each buffer the name of the object that it is.

use std::any::Any;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::members::Members;
use crate::observe::log::cut;
use crate::segment_desc::{SegmentDesc, BUFFERS};
use crate::transport::offer::{Offer, PeerBuffer, Shown};
use crate::transport::ranges::Ranges;

/// The name in C.
pub(super) const NAME: &str = "posix_shm";
/// The protocol that descriptors of such segments name.
pub(super) const FORM: &str = "shm";
/// The member of a buffer that names its object.
const OBJECT: &str = "shm_name";
/// What every name begins with; the number of the process that made the object follows. Seen in upstream 0.3.14:
/// `/mooncake_4456_ulqvipmv`.
const PREFIX: &str = "/mooncake_";
/// Bytes of what follows the number. Chosen: eight were seen, and a name of a file has 255 at the most.
const MOST_SUFFIX: usize = 64;
/// Bytes shown of a name that is none.
const SHOWN_BYTES: usize = 100;

/// The name of an object: a file below `/dev/shm`, and the process that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectName {
    /// As in the descriptor, with the slash.
    pub text: String,
    /// The process, as it calls itself.
    pub pid: u32,
}

impl ObjectName {
    /// `None` for anything but `/mooncake_PID_NAME`, where NAME has letters and digits only: so it has no other slash, and no
    /// `..`.
    fn parse(text: &str) -> Option<Self> {
        let (pid, suffix) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_suffix = (1..=MOST_SUFFIX).contains(&suffix.len())
            && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_number = pid.bytes().all(|byte| byte.is_ascii_digit()) && !pid.starts_with('0');
        let pid = pid.parse::<u32>().ok().filter(|pid| is_number && i32::try_from(*pid).is_ok())?;
        is_suffix.then(|| ObjectName { text: text.to_string(), pid })
    }
}

/// What a peer offers.
pub(super) struct PosixShmOffer {
    /// The process that all objects are of; 0: there is none yet.
    pub pid: u32,
    /// The first name that is none of upstream's form, or of another process, if there is one. Such buffers are left out.
    pub not_understood: Option<String>,
    /// By address.
    buffers: Vec<PeerBuffer>,
    /// Of each buffer.
    names: Vec<ObjectName>,
    ranges: Ranges,
}

impl PosixShmOffer {
    /// `None` if the descriptor is none of upstream's in this form.
    pub(super) fn read(desc: &SegmentDesc) -> Result<Option<Self>> {
        if desc.protocol != FORM || desc.incarnation.is_some() {
            return Ok(None);
        }
        let read = |members: &Members<'_>| {
            let named = members.get(OBJECT).and_then(Value::as_str).unwrap_or_default();
            let name = ObjectName::parse(named).ok_or_else(|| cut(named, SHOWN_BYTES).to_string());
            Ok((PeerBuffer::read(members)?, name))
        };
        let listed = match desc.members.get(BUFFERS) {
            Some(_) => desc.list(BUFFERS, read)?,
            None => Vec::new(),
        };
        let pid = listed.iter().find_map(|(_, name)| name.as_ref().ok()).map_or(0, |name| name.pid);
        let (mut kept, mut not_understood) = (Vec::new(), None);
        kept.try_reserve_exact(listed.len()).map_err(|_| Error::out_of_memory(BUFFERS))?;
        for (buffer, name) in listed {
            match name {
                Ok(name) if name.pid == pid => kept.push((buffer, name)),
                Ok(ObjectName { text, .. }) | Err(text) => not_understood = not_understood.or(Some(text)),
            }
        }
        kept.sort_unstable_by_key(|(buffer, _)| buffer.addr);
        let (mut buffers, mut names) = (Vec::new(), Vec::new());
        let reserved =
            buffers.try_reserve_exact(kept.len()).and_then(|()| names.try_reserve_exact(kept.len()));
        reserved.map_err(|_| Error::out_of_memory(BUFFERS))?;
        for (buffer, name) in kept {
            buffers.push(buffer);
            names.push(name);
        }
        let ranges = Ranges::single(buffers.iter().map(|buffer| (buffer.addr, buffer.len)))?;
        Ok(Some(PosixShmOffer { pid, not_understood, buffers, names, ranges }))
    }

    /// An offer of this transport, as its own type.
    pub(super) fn of(offer: &dyn Offer) -> Option<&Self> {
        offer.as_any().downcast_ref()
    }

    /// The buffer that `len` bytes at `addr` lie in, and its object.
    pub(super) fn around(&self, addr: u64, len: u64) -> Option<(&PeerBuffer, &ObjectName)> {
        let index = self.buffers.partition_point(|buffer| buffer.addr <= addr).checked_sub(1)?;
        let buffer = &self.buffers[index];
        let offset = addr - buffer.addr;
        (offset < buffer.len && len <= buffer.len - offset).then(|| (buffer, &self.names[index]))
    }
}

impl Offer for PosixShmOffer {
    /// Also without a buffer: there may be one soon.
    fn leads(&self) -> bool {
        !self.buffers.is_empty() || self.not_understood.is_none()
    }

    fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    fn buffers(&self) -> Shown<'_> {
        PeerBuffer::shown(&self.buffers)
    }

    /// The process: what was checked for one is never moved to another.
    fn incarnation(&self) -> u64 {
        self.pid.into()
    }

    fn same_as(&self, other: &dyn Offer) -> bool {
        let Some(other) = other.as_any().downcast_ref::<Self>() else { return false };
        let PosixShmOffer { pid, not_understood, buffers, names, ranges } = other;
        self.pid == *pid
            && self.not_understood == *not_understood
            && self.buffers == *buffers
            && self.names == *names
            && self.ranges == *ranges
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn offer(names: &[&str]) -> PosixShmOffer {
        let buffer = |(at, name): (usize, &&str)| json!({"addr": 4096 * (at + 1), "length": 4096, "name": "*", "shm_name": name});
        let buffers: Vec<Value> = names.iter().enumerate().map(buffer).collect();
        let desc = json!({"name": "n", "protocol": "shm", "buffers": buffers});
        PosixShmOffer::read(&SegmentDesc::decode(desc).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn names_are_objects_of_one_process_and_nothing_else() {
        assert_eq!(ObjectName::parse("/mooncake_4456_ulqvipmv").unwrap().pid, 4456);
        let long = format!("/mooncake_1_{}", "x".repeat(MOST_SUFFIX + 1));
        for text in [
            "",
            "/",
            "mooncake_4456_ulqvipmv",
            "//mooncake_4456_ulqvipmv",
            "/mooncake_4456_../../etc/passwd",
            "/mooncake_4456_..",
            "/mooncake_4456_",
            "/mooncake_4456",
            "/mooncake_4456_a/b",
            "/mooncake_4456_a\0b",
            "/mooncake_-4456_a",
            "/mooncake_+4456_a",
            "/mooncake_0_a",
            "/mooncake_04456_a",
            "/mooncake_4294967295_a",
            "/mooncake_99999999999999999999_a",
            "/../mooncake_4456_a",
            "/dev/hugepages/mooncake_4456_a",
            &long,
        ] {
            assert_eq!(ObjectName::parse(text), None, "{text}");
            let offer = offer(&[text]);
            assert!(!offer.leads() && offer.buffers().len() == 0 && offer.incarnation() == 0, "{text}");
        }
    }

    #[test]
    fn a_request_lies_in_one_buffer_with_a_name() {
        let offer = offer(&["/mooncake_7_a", "/mooncake_8_b", "/mooncake_7_c", "x"]);
        assert!(offer.leads() && offer.incarnation() == 7 && offer.buffers().len() == 2);
        assert_eq!(offer.not_understood.as_deref(), Some("/mooncake_8_b"));
        let named = |addr, len| offer.around(addr, len).map(|(_, name)| name.text.as_str());
        assert_eq!(named(4096, 4096), Some("/mooncake_7_a"));
        assert_eq!(named(12288 + 4095, 1), Some("/mooncake_7_c"));
        for (addr, len) in
            [(4095, 1), (4096, 4097), (4097, 4096), (8192, 1), (12288 + 4096, 1), (12289, u64::MAX)]
        {
            assert_eq!(named(addr, len), None, "{addr}+{len}");
        }
    }

    #[test]
    fn only_descriptors_of_upstream_in_this_form_are_read() {
        for desc in [
            json!({"name": "n", "protocol": "tcp", "buffers": []}),
            json!({"name": "n", "protocol": "shm", "buffers": [], "incarnation": "00"}),
        ] {
            assert!(PosixShmOffer::read(&SegmentDesc::decode(desc).unwrap()).unwrap().is_none());
        }
        assert!(offer(&[]).leads(), "it may register something");
    }

    #[test]
    fn a_reading_that_differs_in_anything_offers_something_else() {
        let one = offer(&["/mooncake_7_a", "/mooncake_7_b"]);
        assert!(one.same_as(&offer(&["/mooncake_7_a", "/mooncake_7_b"])));
        for other in [
            &["/mooncake_7_a", "/mooncake_7_c"][..],
            &["/mooncake_8_a", "/mooncake_8_b"],
            &["/mooncake_7_a", "/mooncake_7_b", "x"],
            &["/mooncake_7_a", "/mooncake_7_b", "/mooncake_7_c"],
            &["/mooncake_7_a"],
            &[],
        ] {
            assert!(!one.same_as(&offer(other)), "{other:?}");
            assert!(!offer(other).same_as(&one), "{other:?}");
        }
    }
}
