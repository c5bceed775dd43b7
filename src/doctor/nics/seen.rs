//! What was read of the NICs, before it is judged.

/// The RDMA devices that an engine may use, and what goes with them.
#[derive(Clone, Debug)]
pub(in super::super) struct Nics {
    pub nics: Vec<Nic>,
    /// Devices that `MC_TE_FILTERS` does not name.
    pub left_out: usize,
    /// Names in `MC_TE_FILTERS` that no device has.
    pub unknown: Vec<String>,
    /// NUMA nodes of the machine; 0: unknown.
    pub nodes: usize,
    /// Files in `/etc/libibverbs.d`.
    pub provider_files: usize,
    pub verbs: Verbs,
}

/// What libibverbs says.
#[derive(Clone, Debug)]
pub(in super::super) enum Verbs {
    /// A recorded machine has no drivers.
    NotAsked,
    #[cfg_attr(feature = "rdma", allow(dead_code))]
    NotInThisBuild,
    /// It cannot be loaded, or lists no devices: why.
    Missing(String),
    /// No answer in so many seconds.
    Hangs(u64),
    /// The devices that it lists, each with the active MTU of its port or why it cannot be opened.
    Loaded(Vec<(String, Result<u32, String>)>),
}

/// One device, as sysfs shows it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Nic {
    pub name: String,
    /// `MC_IB_PORT`.
    pub port: u8,
    pub has_port: bool,
    /// `4: ACTIVE`
    pub state: Option<String>,
    /// `5: LinkUp`
    pub physical: Option<String>,
    /// `Ethernet` or `InfiniBand`
    pub link_layer: Option<String>,
    /// `400 Gb/sec (4X NDR)`
    pub rate: Option<String>,
    pub netdev: Option<String>,
    pub netdev_mtu: Option<u64>,
    /// Best first.
    pub gids: Vec<Gid>,
    pub numa: Option<u32>,
}

/// An address of a port.
#[derive(Clone, Debug)]
pub(in super::super) struct Gid {
    pub index: u8,
    pub text: String,
    pub netdev: Option<String>,
    /// Why it stands where it does in the order.
    pub why: &'static str,
    pub quality: Quality,
}

/// How far an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Quality {
    Good,
    /// Link-local, or of an overlay.
    Confined,
    Unroutable,
}

impl Nic {
    pub(super) fn is_active(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state.ends_with("ACTIVE"))
    }

    pub(super) fn is_ethernet(&self) -> bool {
        self.link_layer.as_deref() == Some("Ethernet")
    }

    /// What a line about it begins with.
    pub(super) fn check(&self, what: &str) -> String {
        format!("nic {} {what}", self.name)
    }
}
