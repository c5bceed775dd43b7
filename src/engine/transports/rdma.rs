//! RDMA, as the engine uses it: its members of the descriptor, what it knows of peers, and what it asks of the engine.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::{adopt, Protocol, Transports};
use crate::config::Config;
use crate::engine::links::{Nic, Rail};
use crate::engine::segment::{Known, Segment, SegmentRoute};
use crate::engine::{Engine, Local};
use crate::error::{Code, Error, Result};
use crate::handshake::{Answer, Client, ConnectionMessage};
use crate::metadata::segment_desc::{Buffer, Device, SegmentDesc};
use crate::topology::Matrix;
use crate::transport::incarnation;
use crate::transport::rdma::{
    self, BoxFuture, Host, Identity, PeerBuffer, PeerDesc, PeerNic, Publication, Route,
};
use crate::transport::{Link, Transport};

/// The row of the table.
pub struct Rdma;

impl Protocol for Rdma {
    fn name(&self) -> &'static str {
        "rdma"
    }

    fn installed(&self, transports: &Transports) -> Option<Arc<dyn Transport>> {
        transports.rdma.get().map(|rdma| rdma.clone() as Arc<dyn Transport>)
    }

    fn install(&self, engine: &Arc<Engine>, matrix: Option<Matrix>) -> Result<()> {
        let (matrix, origin) = engine.topology_for_rdma(matrix)?;
        let incarnation = incarnation::hex(&engine.local.incarnation);
        let identity = Identity { server: engine.local.rdma_server(), incarnation };
        let host = Arc::new(EngineHost(Arc::downgrade(engine)));
        let made = rdma::Rdma::install(&engine.config, &engine.control, matrix.clone(), identity, host);
        let made = made.map_err(|e| e.context(format!("{} (from {origin})", nics_of(&matrix))))?;
        adopt(engine, made, &engine.transports().rdma)?;
        engine.set_topology(matrix, origin);
        Ok(())
    }

    /// With every NIC dead there is nothing to describe, and another transport may speak for the segment.
    fn describe(&self, local: &Local, desc: &mut SegmentDesc) {
        let Some(rdma) = local.transports.rdma.get() else { return };
        let publication = rdma.publication();
        if !publication.nics.is_empty() {
            describe(publication, |addr| local.registry.is_published(addr), local.rdma_server(), desc);
        }
    }

    fn is_offered(&self, desc: &SegmentDesc) -> bool {
        desc.protocol == self.name() && !desc.devices.is_empty()
    }

    fn link(&self, engine: &Engine, segment: &Arc<Segment>) -> Option<Arc<dyn Link>> {
        let rdma = engine.transports().rdma.get()?;
        let route = RdmaRoute {
            route: SegmentRoute::new(segment),
            client: engine.client.clone(),
            prepared: ArcSwapOption::empty(),
        };
        Some(rdma.link(Arc::new(route)))
    }

    fn incarnation(&self, known: &Known) -> u64 {
        known.incarnation
    }

    fn task_limit(&self, config: &Config, bytes: u64) -> Option<Duration> {
        Some(config.rdma_task_timeout + Duration::from_secs(bytes / config.rdma_min_rate))
    }

    fn accept(&self, transports: &Transports, request: &ConnectionMessage) -> Option<Answer<'static>> {
        let accepted = transports.rdma.get()?.accept(request.clone());
        let refused = |error: Error| ConnectionMessage::rejection(error.text());
        Some(Box::pin(async move { Some(accepted.await.unwrap_or_else(refused)) }))
    }

    fn nics(&self, engine: &Engine) -> Vec<Nic> {
        let states = engine.transports().rdma.get().map(|rdma| rdma.nics()).unwrap_or_default();
        let nic = |nic: rdma::NicState| Nic {
            name: nic.name,
            numa: -1,
            gid: nic.gid,
            gid_index: nic.gid_index.into(),
            port: engine.config.ib_port,
            speed_gbps: nic.speed_gbps,
            active: nic.active,
            inflight_bytes: nic.inflight_bytes,
            bandwidth_bps: nic.bandwidth_bps,
            last_error: nic.last_error,
        };
        states.into_iter().map(nic).collect()
    }

    fn rails(&self, transports: &Transports) -> Vec<Rail> {
        let states = transports.rdma.get().map(|rdma| rdma.rails()).unwrap_or_default();
        let rail = |rail: rdma::RailState| Rail {
            local: rail.local,
            peer: rail.peer,
            state: rail.state,
            inflight_bytes: rail.inflight_bytes,
            waiting: rail.waiting,
            completed: rail.completed,
            failures: rail.failures,
            last_error: rail.last_error,
        };
        states.into_iter().map(rail).collect()
    }
}

fn nics_of(matrix: &Matrix) -> String {
    match matrix.names() {
        nics if nics.is_empty() => "the topology names no NIC".into(),
        nics => format!("NICs {}", nics.join(", ")),
    }
}

/// Fills the RDMA members in. `is_published` tells whether the region at an address is open to peers: the transport
/// learns of regions before they are open.
fn describe(
    publication: Publication,
    is_published: impl Fn(u64) -> bool,
    server: String,
    desc: &mut SegmentDesc,
) {
    let Publication { nics, matrix, buffers } = publication;
    // Upstream up to 0.3.12 drops the whole descriptor for one buffer without keys.
    let open = |buffer: &rdma::PublishedBuffer| !buffer.rkey.is_empty() && is_published(buffer.addr);
    desc.protocol = "rdma".into();
    desc.rdma_server_name = (server != desc.name).then_some(server);
    desc.devices =
        nics.into_iter().map(|nic| Device { name: nic.name, lid: nic.lid, gid: nic.gid }).collect();
    desc.buffers = buffers
        .into_iter()
        .filter(open)
        .map(|buffer| Buffer {
            name: buffer.location,
            addr: buffer.addr,
            length: buffer.len,
            rkey: buffer.rkey,
            lkey: buffer.lkey,
        })
        .collect();
    desc.priority_matrix = matrix.to_value();
}

/// A peer's descriptor as the transport wants it. Keyless buffers are no use to it; a malformed matrix is none.
fn peer_desc(desc: &SegmentDesc) -> PeerDesc {
    let matrix = Matrix::from_value(&desc.priority_matrix).unwrap_or_else(|error| {
        tracing::debug!("priority_matrix of '{}' is not used: {error}", desc.name);
        Matrix::default()
    });
    let with_keys = desc.buffers.iter().filter(|buffer| !buffer.rkey.is_empty());
    PeerDesc {
        server: desc.rdma_server_name.as_ref().unwrap_or(&desc.name).clone(),
        nics: desc
            .devices
            .iter()
            .map(|d| PeerNic { name: d.name.clone(), lid: d.lid, gid: d.gid.clone() })
            .collect(),
        buffers: with_keys
            .map(|buffer| PeerBuffer {
                location: buffer.name.clone(),
                addr: buffer.addr,
                len: buffer.length,
                rkey: buffer.rkey.clone(),
            })
            .collect(),
        matrix,
        incarnation: desc.incarnation.clone(),
    }
}

/// How a link knows its peer.
struct RdmaRoute {
    route: SegmentRoute,
    client: Client,
    /// The descriptor's version and what was made of it.
    prepared: ArcSwapOption<(u64, Arc<PeerDesc>)>,
}

impl Route for RdmaRoute {
    fn peer(&self) -> String {
        self.route.peer.clone()
    }

    /// After the segment was closed: as it was last, so that transfers under way go on.
    fn desc(&self) -> Result<(Arc<PeerDesc>, u64)> {
        let last = self.prepared.load();
        let known = match (self.route.segment(), &*last) {
            (Ok(segment), _) => segment.known(),
            (Err(_), Some(last)) => return Ok((last.1.clone(), last.0)),
            (Err(closed), None) => return Err(closed),
        };
        if let Some(last) = last.as_ref().filter(|last| last.0 == known.version) {
            return Ok((last.1.clone(), last.0));
        }
        if !Rdma.is_offered(&known.desc) {
            let text = "the peer publishes no RDMA device any more";
            return Err(Error::new(Code::DeviceNotFound, text).peer(&self.route.peer));
        }
        let made = Arc::new(peer_desc(&known.desc));
        self.prepared.store(Some(Arc::new((known.version, made.clone()))));
        Ok((made, known.version))
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let segment = self.route.segment()?;
            segment.refresh().await
        })
    }

    fn exchange(&self, message: ConnectionMessage) -> BoxFuture<'_, ConnectionMessage> {
        Box::pin(async move {
            let segment = self.route.segment()?;
            let address = segment.rpc_address().await?;
            let answer = self.client.connection(&address, &message).await;
            if answer.as_ref().is_err_and(|error| matches!(error.code(), Code::Socket | Code::Dns)) {
                segment.forget_rpc_address();
            }
            answer
        })
    }
}

/// The engine, as far as the transport may use it. Weak: the engine owns the transport.
struct EngineHost(Weak<Engine>);

impl Host for EngineHost {
    fn republish(&self) {
        if let Some(engine) = self.0.upgrade() {
            engine.publish_soon();
        }
    }

    fn look_up_nic(&self, path: &str) -> BoxFuture<'_, (String, u16)> {
        let path = path.to_string();
        Box::pin(async move {
            let unknown = |why: &str| Error::new(Code::Metadata, format!("NIC path '{path}': {why}"));
            let (server, nic) =
                path.split_once('@').ok_or_else(|| unknown("it has no '@' before the NIC"))?;
            let reading = {
                let engine = self.0.upgrade().ok_or_else(|| unknown("the engine is being destroyed"))?;
                let segment = engine.segments.named_by_server(server).unwrap_or_else(|| server.to_string());
                let store = engine.store.clone();
                async move { store.get(&segment).await }
            };
            let desc = reading.await.map_err(|e| e.context(format!("look up NIC path '{path}'")))?;
            let device = desc.devices.into_iter().find(|device| device.name == nic);
            let device =
                device.ok_or_else(|| unknown("the descriptor of its server does not list the NIC"))?;
            Ok((device.gid, device.lid))
        })
    }
}

#[cfg(test)]
mod tests;
