//! NIC paths against an engine of our own.

use serde_json::json;

use super::*;
use crate::config::Config;
use crate::host_port::HostPort;
use crate::memory::Registry;
use crate::runtime::control::Control;
use crate::segment_desc::SegmentDesc;

/// An engine that has one segment open, and can read that one only.
struct Fake {
    config: Arc<Config>,
    control: Arc<Control>,
    registry: Arc<Registry>,
    address: HostPort,
    opened_as: &'static str,
    desc: SegmentDesc,
}

impl Fake {
    fn new(config: Config, server: &str) -> Arc<Self> {
        let desc = json!({"name": "node", "protocol": "rdma", "rdma_server_name": server,
            "devices": [{"name": "a", "gid": "00:01"}, {"name": "b", "gid": "00:02", "lid": 7}]});
        Arc::new(Fake {
            config: Arc::new(config),
            control: Arc::new(Control::start().unwrap()),
            registry: Arc::default(),
            address: HostPort { host: "h".into(), port: 1 },
            opened_as: "node",
            desc: SegmentDesc::decode(desc).unwrap(),
        })
    }

    fn look_up(self: &Arc<Self>, path: &str) -> Result<(String, u16)> {
        let (engine, path) = (Engine(self.clone()), path.to_string());
        let found = self.control.block(async move { engine.look_up_nic(&path).await });
        self.control.stop();
        found
    }
}

#[rustfmt::skip]
impl host::Host for Fake {
    fn config(&self) -> &Arc<Config> { &self.config }
    fn control(&self) -> &Arc<Control> { &self.control }
    fn registry(&self) -> &Arc<Registry> { &self.registry }
    fn name(&self) -> &str { "10.0.0.1:12" }
    fn address(&self) -> &HostPort { &self.address }
    fn incarnation(&self) -> &[u8; 16] { &[0; 16] }
    fn republish(&self) {}
    fn notified(&self, _: crate::handshake::Notification) -> bool { false }

    fn read(&self, segment: &str) -> crate::runtime::BoxFuture<'_, Result<SegmentDesc>> {
        let known = segment == self.opened_as;
        let absent = || Error::new(Code::Metadata, "not there");
        Box::pin(std::future::ready(known.then(|| self.desc.clone()).ok_or_else(absent)))
    }

    fn opened_as(&self, protocol: &str, is_wanted: &dyn Fn(&dyn Offer) -> bool) -> Option<String> {
        let offer = RdmaOffer::read(&self.desc).unwrap().unwrap();
        (protocol == NAME && is_wanted(&offer)).then(|| self.opened_as.to_string())
    }
}

#[test]
fn nics_are_looked_up_by_their_path_at_the_peer() {
    let fake = || Fake::new(Config::default(), "10.0.0.9:1");
    let expected = ("00:02".to_string(), 7);
    assert_eq!(fake().look_up("node@b").unwrap(), expected);
    assert_eq!(fake().look_up("10.0.0.9:1@b").unwrap(), expected, "known from the segment that was opened");
    for path in ["node@c", "node", "@b", "other@b"] {
        let error = fake().look_up(path).unwrap_err();
        assert_eq!(error.code(), Code::Metadata);
        assert!(error.text().contains(path), "{error}");
    }
}

#[test]
fn our_paths_name_the_segment_unless_an_address_is_set() {
    let server = |bind: Option<&str>| {
        let config = Config { rdma_bind_address: bind.map(String::from), ..Config::default() };
        let fake = Fake::new(config, "s");
        let server = Engine(fake.clone()).server();
        fake.control.stop();
        server
    };
    assert_eq!(server(None), "10.0.0.1:12");
    assert_eq!(server(Some("fe80::1")), "fe80::1:12");
}
