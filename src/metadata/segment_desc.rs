//! The descriptor that an engine publishes about itself: how to reach it and which memory may be accessed.

mod timestamp;

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};
use crate::json::members::Members;

/// Most buffers accepted from a peer.
const MAX_BUFFERS: usize = 1_000_000;

/// How the devices and buffers of a protocol are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Buffers without keys, no devices.
    Tcp,
    /// Devices, and buffers with one key per device.
    Rdma,
    /// Known, but this project cannot talk to it: neither devices nor buffers are read.
    Foreign,
}

/// Every protocol that a descriptor may name.
const PROTOCOLS: &[(&str, Form)] = &[
    ("tcp", Form::Tcp),
    ("rdma", Form::Rdma),
    ("barex", Form::Foreign),
    ("efa", Form::Foreign),
    ("cxi", Form::Foreign),
    ("ub", Form::Foreign),
    ("nccl", Form::Foreign),
    ("ascend", Form::Foreign),
    ("nvlink", Form::Foreign),
    ("nvlink_intra", Form::Foreign),
    ("hip", Form::Foreign),
    ("maca", Form::Foreign),
    ("musa", Form::Foreign),
    ("ubshmem", Form::Foreign),
    ("sunrise_link", Form::Foreign),
    ("cxl", Form::Foreign),
    ("nvmeof", Form::Foreign),
];

/// One NIC of the publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Device name, for example `mlx5_0`.
    pub name: String,
    /// LID of its port.
    pub lid: u16,
    /// 16 lower-case hex bytes joined by `:`.
    pub gid: String,
}

/// One registered region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// Location for RDMA, the server's name for TCP.
    pub name: String,
    /// Virtual address at the publisher, not 0.
    pub addr: u64,
    /// Length in bytes, not 0; the end does not pass 2^64.
    pub length: u64,
    /// Remote keys, one per device; empty for TCP and for regions without remote access.
    pub rkey: Vec<u32>,
    /// Local keys, as many as `rkey`.
    pub lkey: Vec<u32>,
}

/// A segment descriptor.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentDesc {
    /// Name that the publisher wants to be called by from now on.
    pub name: String,
    /// One of the protocols of the table, a single one.
    pub protocol: String,
    /// Host of the TCP data port; `None` means the host of `name` or of the RPC address.
    pub tcp_data_host: Option<String>,
    /// TCP data port; 0 if there is none.
    pub tcp_data_port: u16,
    /// 2 from a TCP transport that sends status frames, else 1.
    pub tcp_proto_version: u32,
    /// Server part of the publisher's NIC paths, if it is not `name`.
    pub rdma_server_name: Option<String>,
    /// NICs, in the publisher's order.
    pub devices: Vec<Device>,
    /// Regions, in order of registration.
    pub buffers: Vec<Buffer>,
    /// NIC priority matrix; an object or null, rows not checked.
    pub priority_matrix: Value,
    /// Random id of the publisher's start, if it is an engine of this project.
    pub incarnation: Option<String>,
    /// Address of the cell that holds the incarnation, readable by peers; 0 if there is none.
    pub incarnation_addr: u64,
}

impl Default for SegmentDesc {
    fn default() -> Self {
        SegmentDesc {
            name: String::new(),
            protocol: "tcp".into(),
            tcp_data_host: None,
            tcp_data_port: 0,
            tcp_proto_version: 1,
            rdma_server_name: None,
            devices: Vec::new(),
            buffers: Vec::new(),
            priority_matrix: Value::Null,
            incarnation: None,
            incarnation_addr: 0,
        }
    }
}

impl SegmentDesc {
    /// The JSON to publish, stamped with the current time; RDMA members only with protocol `rdma`.
    pub fn encode(&self) -> Value {
        let rdma = form(&self.protocol) == Some(Form::Rdma);
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| drop(map.insert(name.to_string(), value));
        put("name", self.name.as_str().into());
        put("protocol", self.protocol.as_str().into());
        put("tcp_data_port", self.tcp_data_port.into());
        put("tcp_proto_version", self.tcp_proto_version.into());
        put("timestamp", timestamp::now().into());
        put("buffers", self.buffers.iter().map(|buffer| encode_buffer(buffer, rdma)).collect());
        if rdma {
            put("devices", self.devices.iter().map(encode_device).collect());
            put("priority_matrix", self.priority_matrix.clone());
        }
        if let Some(host) = &self.tcp_data_host {
            put("tcp_data_host", host.as_str().into());
        }
        if let Some(server) = self.rdma_server_name.as_ref().filter(|server| **server != self.name) {
            put("rdma_server_name", server.as_str().into());
        }
        if let Some(incarnation) = &self.incarnation {
            put("incarnation", incarnation.as_str().into());
        }
        if self.incarnation_addr != 0 {
            put("incarnation_addr", self.incarnation_addr.into());
        }
        Value::Object(map)
    }

    /// Reads a peer's descriptor. `ERR_MALFORMED_JSON` naming the member if a required one is missing or one
    /// is of the wrong type or out of range, or if the protocol is unknown.
    pub fn decode(value: &Value) -> Result<Self> {
        let members = Members::of(value, "descriptor")?;
        let protocol = members.filled_text("protocol")?;
        let form = form(protocol).ok_or_else(|| malformed(format!("protocol '{protocol}' is unknown")))?;
        let mut desc = SegmentDesc {
            name: members.text("name")?.into(),
            protocol: protocol.into(),
            tcp_data_host: members.optional_text("tcp_data_host")?,
            tcp_data_port: members.uint("tcp_data_port")?.unwrap_or(0),
            tcp_proto_version: members.uint("tcp_proto_version")?.unwrap_or(1),
            rdma_server_name: members.optional_text("rdma_server_name")?,
            incarnation: members.optional_text("incarnation")?,
            incarnation_addr: members.uint("incarnation_addr")?.unwrap_or(0),
            ..SegmentDesc::default()
        };
        if form == Form::Rdma {
            desc.devices = decode_each(&members, "devices", decode_device)?;
            match members.get("priority_matrix") {
                Some(matrix @ Value::Object(_)) => desc.priority_matrix = matrix.clone(),
                Some(_) => tracing::debug!("priority_matrix of '{}' is not an object; ignored", desc.name),
                None => {}
            }
        }
        if form != Form::Foreign {
            let devices = (form == Form::Rdma).then_some(desc.devices.len());
            desc.buffers = decode_each(&members, "buffers", |value| decode_buffer(value, devices))?;
        }
        Ok(desc)
    }

    /// Whether `other` says the same, whatever its protocol version.
    pub fn same_as(&self, other: &SegmentDesc) -> bool {
        // Names every field, so that a new one cannot be forgotten here.
        let SegmentDesc {
            name,
            protocol,
            tcp_data_host,
            tcp_data_port,
            tcp_proto_version: _,
            rdma_server_name,
            devices,
            buffers,
            priority_matrix,
            incarnation,
            incarnation_addr,
        } = other;
        self.name == *name
            && self.protocol == *protocol
            && self.tcp_data_host == *tcp_data_host
            && self.tcp_data_port == *tcp_data_port
            && self.rdma_server_name == *rdma_server_name
            && self.devices == *devices
            && self.buffers == *buffers
            && self.priority_matrix == *priority_matrix
            && self.incarnation == *incarnation
            && self.incarnation_addr == *incarnation_addr
    }
}

fn form(protocol: &str) -> Option<Form> {
    PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, form)| *form)
}

fn encode_device(device: &Device) -> Value {
    serde_json::json!({"name": device.name, "lid": device.lid, "gid": device.gid})
}

fn encode_buffer(buffer: &Buffer, keys: bool) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), buffer.name.as_str().into());
    map.insert("addr".into(), buffer.addr.into());
    map.insert("length".into(), buffer.length.into());
    if keys {
        map.insert("rkey".into(), buffer.rkey.as_slice().into());
        map.insert("lkey".into(), buffer.lkey.as_slice().into());
    }
    Value::Object(map)
}

fn decode_each<T>(
    members: &Members<'_>,
    name: &str,
    decode: impl Fn(&Members<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let items = members.array(name)?;
    if items.len() > MAX_BUFFERS {
        return Err(malformed(format!("{} {name} are more than the {MAX_BUFFERS} accepted", items.len())));
    }
    let mut decoded = Vec::new();
    decoded.try_reserve_exact(items.len()).map_err(|_| Error::out_of_memory(name))?;
    for (i, item) in items.iter().enumerate() {
        let one = Members::of(item, "element").and_then(|members| decode(&members));
        decoded.push(one.map_err(|e| e.context(format_args!("{name}[{i}]")))?);
    }
    Ok(decoded)
}

fn decode_device(members: &Members<'_>) -> Result<Device> {
    Ok(Device {
        name: members.filled_text("name")?.into(),
        lid: members.uint("lid")?.unwrap_or(0),
        gid: members.filled_text("gid")?.into(),
    })
}

/// `devices` is their number where buffers have keys.
fn decode_buffer(members: &Members<'_>, devices: Option<usize>) -> Result<Buffer> {
    let nonzero = |name| match members.uint::<u64>(name)? {
        None | Some(0) => Err(malformed(format!("member '{name}' is missing or 0"))),
        Some(number) => Ok(number),
    };
    let mut buffer = Buffer {
        name: members.filled_text("name")?.into(),
        addr: nonzero("addr")?,
        length: nonzero("length")?,
        ..Buffer::default()
    };
    if buffer.addr.checked_add(buffer.length).is_none() {
        return Err(malformed(format!("addr {} plus length {} passes 2^64", buffer.addr, buffer.length)));
    }
    if let Some(devices) = devices {
        buffer.rkey = members.uints("rkey")?;
        buffer.lkey = members.uints("lkey")?;
        let (remote, local) = (buffer.rkey.len(), buffer.lkey.len());
        if remote != 0 && (remote != local || remote != devices) {
            return Err(malformed(format!("{remote} rkey, {local} lkey and {devices} devices do not match")));
        }
    }
    Ok(buffer)
}

fn malformed(why: String) -> Error {
    Error::new(Code::MalformedJson, why)
}

#[cfg(test)]
mod tests;
