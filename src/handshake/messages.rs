//! The JSON bodies of the four message types. Decoding defaults missing and null members and refuses wrong
//! types with `ERR_MALFORMED_JSON`; unknown members are ignored.

use serde_json::{json, Map, Value};

use crate::error::Result;
use crate::json::members::Members;
use crate::observe::log::cut;
use crate::runtime::headroom;

/// Bytes of a peer's reason that are kept: it becomes part of errors and of the log. Chosen: upstream's and ours are
/// shorter.
const LONGEST_REASON: usize = 1024;

/// A name and a message sent from one engine to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// Free text of the sender.
    pub name: String,
    /// Free text of the sender; "" in a reply means refused.
    pub message: String,
}

impl Notification {
    /// The body of a notify request or reply. `ERR_MEMORY` if its texts cannot be copied.
    pub fn encode(&self) -> Result<Value> {
        let copy = |text| headroom::copy(text, "a notification").map(Value::String);
        let members = [("name", copy(&self.name)?), ("notify_msg", copy(&self.message)?)];
        Ok(members.into_iter().map(|(name, text)| (name.to_string(), text)).collect())
    }

    /// Reads what `encode` makes.
    pub fn decode(value: &Value) -> Result<Self> {
        let members = Members::of(value, "notification")?;
        Ok(Notification { name: members.owned_text("name")?, message: members.owned_text("notify_msg")? })
    }

    /// The reply to a notification that was queued, or refused because the queue is full.
    pub fn reply(accepted: bool) -> Value {
        let message = if accepted { "success" } else { "" };
        json!({"name": "", "notify_msg": message})
    }
}

/// The reply to a probe.
pub fn probe_reply() -> Value {
    json!({"status": "success"})
}

/// Request and reply of RDMA endpoint set-up (type 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionMessage {
    /// `server@nic` of whoever sends this message.
    pub local_nic_path: String,
    /// `server@nic` of its receiver; a reply echoes the requester's path.
    pub peer_nic_path: String,
    /// LID of the sender's port.
    pub local_lid: u16,
    /// GID of the sender, 16 hex bytes joined by `:`; "" means look it up in the descriptor.
    pub local_gid: String,
    /// The sender's queue pair numbers.
    pub qp_num: Vec<u32>,
    /// `None`: no ready acknowledgement supported; `Some(true)`: this is the acknowledgement.
    pub ready_ack: Option<bool>,
    /// Reason of a rejection; "" means accepted.
    pub reply_msg: String,
    /// Always "" for RDMA.
    pub payload: String,
    /// Engine start that the sender expects at the receiver; only this project sends it.
    pub incarnation: Option<String>,
    /// Engine start of the sender; only this project sends it.
    pub own_incarnation: Option<String>,
    /// Path MTU of the sender, bytes; only this project sends it.
    pub path_mtu: Option<u32>,
    /// `Some(true)`: the receiver is to give up its end of the connection with the sender's queue pairs `qp_num`; only
    /// this project sends it, and only to itself.
    pub withdraw: Option<bool>,
    /// Number of the request, which grows with every one that the sender's engine makes: one that comes after a greater
    /// one was overtaken. Only this project sends it.
    pub attempt: Option<u64>,
    /// With `withdraw`: numbers of the sender's connections that the receiver is to close. Empty in all other messages;
    /// only this project sends it, and only to itself.
    pub connections: Vec<u64>,
    /// With `reply_msg`: a word that says why, for the other engine to act on; only this project sends it.
    pub refusal: Option<String>,
    /// The receiver's GID that did not carry the sender's packets: it is to answer with another one. Only upstream's
    /// 0.3.14 and later send it, and a text of another type counts as none.
    pub auto_gid_reprobe_from: Option<String>,
    /// The sender's queue pair for notifications, over 0. Upstream's 0.3.14 and later have one; another type counts as
    /// none.
    pub notify_qp_num: Option<u32>,
}

impl ConnectionMessage {
    /// A reply that refuses the connection because of `reason`, which is not empty.
    pub fn rejection(reason: impl Into<String>) -> Self {
        ConnectionMessage { reply_msg: reason.into(), ..Self::default() }
    }

    /// The body of a type 0 request or reply. `ERR_MEMORY` if a path, which a peer may have chosen, cannot be copied.
    pub fn encode(&self) -> Result<Value> {
        let path = |text| headroom::copy(text, "a connection message").map(Value::String);
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_string(), value);
        put("local_nic_path", path(&self.local_nic_path)?);
        put("peer_nic_path", path(&self.peer_nic_path)?);
        put("local_lid", self.local_lid.into());
        put("local_gid", self.local_gid.as_str().into());
        put("qp_num", self.qp_num.as_slice().into());
        put("reply_msg", self.reply_msg.as_str().into());
        put("payload", self.payload.as_str().into());
        if let Some(ack) = self.ready_ack {
            put("ready_ack", ack.into());
        }
        if let Some(incarnation) = &self.incarnation {
            put("incarnation", incarnation.as_str().into());
        }
        if let Some(own) = &self.own_incarnation {
            put("own_incarnation", own.as_str().into());
        }
        if let Some(mtu) = self.path_mtu {
            put("path_mtu", mtu.into());
        }
        if let Some(withdraw) = self.withdraw {
            put("withdraw", withdraw.into());
        }
        if let Some(attempt) = self.attempt {
            put("attempt", attempt.into());
        }
        if !self.connections.is_empty() {
            put("connections", self.connections.as_slice().into());
        }
        if let Some(refusal) = &self.refusal {
            put("refusal", refusal.as_str().into());
        }
        if let Some(gid) = &self.auto_gid_reprobe_from {
            put("auto_gid_reprobe_from", gid.as_str().into());
        }
        if let Some(number) = self.notify_qp_num {
            put("notify_qp_num", number.into());
            // What upstream has beside it for ordinary connections.
            put("notify_rq_depth", 0.into());
            put("ctrl_channel", false.into());
        }
        Ok(Value::Object(map))
    }

    /// Reads what `encode` makes.
    pub fn decode(value: &Value) -> Result<Self> {
        let members = Members::of(value, "connection message")?;
        let text = |name| members.owned_text(name);
        Ok(ConnectionMessage {
            local_nic_path: text("local_nic_path")?,
            peer_nic_path: text("peer_nic_path")?,
            // The one member whose wrong type upstream reads as the default.
            local_lid: members.uint("local_lid").ok().flatten().unwrap_or(0),
            local_gid: text("local_gid")?,
            qp_num: members.uints("qp_num")?,
            ready_ack: members.flag("ready_ack")?,
            reply_msg: cut(members.text("reply_msg")?, LONGEST_REASON).into(),
            payload: text("payload")?,
            incarnation: members.optional_text("incarnation")?,
            own_incarnation: members.optional_text("own_incarnation")?,
            path_mtu: members.uint("path_mtu")?,
            withdraw: members.flag("withdraw")?,
            connections: members.uints("connections")?,
            attempt: members.uint("attempt")?,
            refusal: members.optional_text("refusal")?,
            notify_qp_num: members.uint("notify_qp_num").ok().flatten().filter(|number| *number > 0),
            auto_gid_reprobe_from: members.optional_text("auto_gid_reprobe_from").ok().flatten(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::handshake::wire::CONNECTION;
    use crate::json;

    /// Every decoded type 0 body of the recorded RDMA handshakes.
    fn recorded() -> Vec<Value> {
        let file = json::parse(include_bytes!("../../tests/vectors/rdma-connection.json")).unwrap();
        let steps = file["steps"].as_array().unwrap().iter().flat_map(|s| [&s["request"], &s["reply"]]);
        let connections = steps.map(|f| &f["decoded"]).filter(|d| d["type"] == CONNECTION);
        connections.map(|d| d["json"].clone()).collect()
    }

    #[test]
    fn recorded_connection_messages_round_trip() {
        let bodies = recorded();
        assert!(bodies.len() >= 6);
        for body in bodies {
            assert_eq!(ConnectionMessage::decode(&body).unwrap().encode().unwrap(), body);
        }
        let ours = ConnectionMessage {
            incarnation: Some("i".into()),
            own_incarnation: Some("o".into()),
            path_mtu: Some(4096),
            ready_ack: Some(true),
            refusal: Some("stale".into()),
            attempt: Some(u64::MAX),
            auto_gid_reprobe_from: Some("g".into()),
            notify_qp_num: Some(7),
            ..ConnectionMessage::rejection("no")
        };
        assert_eq!(ConnectionMessage::decode(&ours.encode().unwrap()).unwrap(), ours);
    }

    #[test]
    fn a_reason_is_kept_as_far_as_it_is_read() {
        let long = ConnectionMessage::decode(&json!({"reply_msg": "\u{e9}".repeat(1 << 20)})).unwrap();
        assert_eq!(long.reply_msg, "\u{e9}".repeat(LONGEST_REASON / 2));
    }

    #[test]
    fn missing_and_null_members_have_defaults() {
        for body in [json!({}), json!({"qp_num": null, "reply_msg": null, "local_lid": "x", "other": []})] {
            assert_eq!(ConnectionMessage::decode(&body).unwrap(), ConnectionMessage::default());
        }
        for body in [json!({}), json!({"name": null, "notify_msg": null})] {
            assert_eq!(Notification::decode(&body).unwrap(), Notification::default());
        }
        for lid in [json!(-1), json!(65536), json!(1.5)] {
            assert_eq!(ConnectionMessage::decode(&json!({"local_lid": lid})).unwrap().local_lid, 0);
        }
        for number in
            [json!("x"), json!(-1), json!(0), json!(null), json!(1.5), json!(4294967296u64), json!([1])]
        {
            let message =
                ConnectionMessage::decode(&json!({"notify_qp_num": number, "notify_rq_depth": -1})).unwrap();
            assert_eq!(message.notify_qp_num, None, "{number}");
        }
        for gid in [json!(7), json!({}), json!(""), json!(null), json!(["a"])] {
            let message = ConnectionMessage::decode(&json!({"auto_gid_reprobe_from": gid})).unwrap();
            assert_eq!(message.auto_gid_reprobe_from, None, "{gid}");
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        for body in [json!([]), json!("x"), json!(1), json!(null)] {
            assert_eq!(ConnectionMessage::decode(&body).unwrap_err().code(), Code::MalformedJson);
            assert_eq!(Notification::decode(&body).unwrap_err().code(), Code::MalformedJson);
        }
        for body in [
            json!({"qp_num": [-1]}),
            json!({"qp_num": [4294967296u64]}),
            json!({"qp_num": ["1"]}),
            json!({"qp_num": {}}),
            json!({"payload": {}}),
            json!({"ready_ack": "true"}),
            json!({"local_nic_path": 1}),
            json!({"path_mtu": -1}),
        ] {
            assert_eq!(ConnectionMessage::decode(&body).unwrap_err().code(), Code::MalformedJson, "{body}");
        }
        for body in [json!({"name": 1}), json!({"notify_msg": {}}), json!({"notify_msg": true})] {
            assert_eq!(Notification::decode(&body).unwrap_err().code(), Code::MalformedJson, "{body}");
        }
    }
}
