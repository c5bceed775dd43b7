//! TCP, as the engine uses it: its members of the descriptor, and how its links find their peers.

use std::sync::Arc;

use super::{adopt, Protocol, Transports};
use crate::config::Config;
use crate::engine::segment::{Known, Segment, SegmentRoute};
use crate::engine::{Engine, Local};
use crate::error::{Code, Error, Result};
use crate::metadata::segment_desc::{Buffer, SegmentDesc};
use crate::topology::Matrix;
use crate::transport::incarnation;
use crate::transport::tcp::{self, Endpoint, Refreshed, Route};
use crate::transport::{Link, Transport};

/// The row of the table.
pub struct Tcp;

impl Protocol for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn installed(&self, transports: &Transports) -> Option<Arc<dyn Transport>> {
        transports.tcp.get().map(|tcp| tcp.clone() as Arc<dyn Transport>)
    }

    fn install(&self, engine: &Arc<Engine>, matrix: Option<Matrix>) -> Result<()> {
        let local = &engine.local;
        let made = tcp::Tcp::install(&engine.config, &local.registry, &engine.control, local.incarnation)?;
        adopt(engine, made, &engine.transports().tcp)?;
        if let Some(matrix) = matrix {
            engine.set_topology(matrix, "args[0]");
        }
        Ok(())
    }

    fn describe(&self, local: &Local, desc: &mut SegmentDesc) {
        let Some(tcp) = local.transports.tcp.get() else { return };
        desc.tcp_data_host = Some(local.address.host.clone());
        desc.tcp_data_port = tcp.port();
        desc.tcp_proto_version = 2;
        desc.incarnation_addr = tcp.incarnation_cell();
        if desc.protocol.is_empty() {
            desc.protocol = self.name().into();
            let published = local.registry.published();
            let buffer = |region: &Arc<crate::memory::Region>| Buffer {
                name: local.name.clone(),
                addr: region.addr,
                length: region.len,
                ..Buffer::default()
            };
            desc.buffers = published.iter().map(buffer).collect();
        }
    }

    fn is_offered(&self, desc: &SegmentDesc) -> bool {
        desc.tcp_data_port != 0
    }

    fn link(&self, engine: &Engine, segment: &Arc<Segment>) -> Option<Arc<dyn Link>> {
        let tcp = engine.transports().tcp.get()?;
        Some(tcp.link(Arc::new(SegmentRoute::new(segment))))
    }

    /// The peer's cell is read when a connection is made; without one nothing is proven.
    fn incarnation(&self, known: &Known) -> u64 {
        if known.desc.incarnation_addr == 0 {
            0
        } else {
            known.incarnation
        }
    }

    fn takes_any_source(&self, config: &Config) -> bool {
        config.tcp_allow_unregistered_source
    }
}

impl Route for SegmentRoute {
    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn endpoint(&self) -> Result<Endpoint> {
        let known = self.segment()?.known();
        let desc = &known.desc;
        if desc.tcp_data_port == 0 {
            return Err(
                Error::new(Code::Socket, "the peer offers no TCP data port any more").peer(&self.peer)
            );
        }
        Ok(Endpoint {
            peer: self.peer.clone(),
            host: known.data_host.clone(),
            port: desc.tcp_data_port,
            proto_version: desc.tcp_proto_version,
            incarnation: proof(desc),
        })
    }

    fn refresh(&self) -> Refreshed<'_> {
        Box::pin(async {
            let segment = self.segment()?;
            segment.refresh().await
        })
    }
}

/// What a lane reads to know that it talks to the process that the descriptor speaks of: the
/// incarnation id, and the address of the cell that holds it.
fn proof(desc: &SegmentDesc) -> Option<([u8; incarnation::LEN], u64)> {
    let id = desc.incarnation.as_deref().and_then(incarnation::unhex)?;
    (desc.incarnation_addr != 0).then_some((id, desc.incarnation_addr))
}
