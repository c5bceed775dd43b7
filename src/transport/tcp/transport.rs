//! The installed transport: its port, its threads, its links.

use std::net::IpAddr;
use std::sync::Arc;

use super::link::TcpLink;
use super::reactor::Reactor;
use super::shared::Shared;
use super::{accept, fence, nics, offer};
use crate::error::Result;
use crate::handshake::ConnectionMessage;
use crate::memory::Region;
use crate::runtime::interfaces;
use crate::runtime::ports::{bind_address, BoundPort};
use crate::runtime::reactor::threads;
use crate::runtime::BoxFuture;
use crate::segment_desc::SegmentDesc;
use crate::transport::host::{Host, Route};
use crate::transport::links::{stopping, Links};
use crate::transport::offer::list_plain;
use crate::transport::report::{QueueReport, RailReport};
use crate::transport::{Link, Transport};

/// The installed transport.
pub(super) struct Tcp {
    shared: Arc<Shared>,
    host: Arc<dyn Host>,
    port: u16,
    /// Addresses of NICs that peers are told.
    offered: Vec<IpAddr>,
    links: Links<TcpLink>,
}

impl Tcp {
    /// Opens the data port and starts the threads.
    pub(super) fn install(host: Arc<dyn Host>) -> Result<Arc<Self>> {
        let config = host.config();
        let nics = match &config.tcp_nics {
            Some(names) => nics::named(names, config.use_ipv6, &interfaces::list()?)?,
            None => Vec::new(),
        };
        let only = bind_address(config)?;
        let offered = nics::offered(&nics, only);
        if let Some(only) = only.filter(|_| offered.len() < nics.len()) {
            tracing::warn!(
                "peers are not told of all MC_TCP_NICS: the data port listens at MC_BIND_ADDRESS={only} only"
            );
        }
        let bound = BoundPort::data(config)?;
        let port = bound.port();
        let listener = bound.listen(config.listen_backlog)?;
        let shared = Arc::new(Shared::new(&*host, nics));
        let reactors: Vec<_> = (0..threads::wanted(config.tcp_threads))
            .map(|_| Reactor::new(config.tcp_busy_poll))
            .collect::<Result<_>>()?;
        let tcp = Arc::new(Tcp { shared, host, port, offered, links: Links::default() });
        tcp.shared.threads.start(reactors, Reactor::run)?;
        if let Some(first) = tcp.shared.threads.reactors().first() {
            let shared = tcp.shared.clone();
            first.listen(listener, Box::new(move |accepted| accept::distribute(&shared, accepted)));
        }
        Ok(tcp)
    }
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        offer::NAME
    }

    fn describe(&self, desc: &mut SegmentDesc) {
        let ours = offer::Ours {
            host: &self.host.address().host,
            port: self.port,
            cell: self.shared.cell(),
            addresses: &self.offered,
        };
        offer::describe(&ours, desc);
    }

    fn list_buffers(&self, desc: &mut SegmentDesc) -> Result<bool> {
        list_plain(&self.shared.registry.published()?, desc)?;
        Ok(true)
    }

    fn link(&self, route: Arc<dyn Route>) -> Arc<dyn Link> {
        let link = TcpLink::new(&self.shared, route);
        if !self.links.add(&link) {
            link.close(&stopping());
        }
        link
    }

    fn is_asked(&self, request: &ConnectionMessage) -> bool {
        fence::is_question(request)
    }

    fn answer(&self, request: &ConnectionMessage) -> Option<BoxFuture<'static, ConnectionMessage>> {
        self.is_asked(request).then(|| fence::answer(&self.shared, request))
    }

    fn takes_any_source(&self) -> bool {
        self.shared.config.tcp_allow_unregistered_source
    }

    fn abort(&self, region: &Arc<Region>) {
        self.links.live().iter().for_each(|link| link.abort(region));
        self.shared.threads.reactors().iter().for_each(|reactor| reactor.abort(region));
    }

    fn stop(&self) {
        for link in self.links.stop() {
            link.close(&stopping());
        }
        self.shared.threads.reactors().iter().for_each(|reactor| reactor.stop());
        for thread in self.shared.threads.take_running() {
            let _ = thread.join();
        }
    }

    /// Those to peers with several addresses.
    fn rails(&self) -> Vec<RailReport> {
        self.links.live().iter().flat_map(|link| link.report()).collect()
    }

    fn queues(&self) -> Vec<QueueReport> {
        self.links.live().iter().flat_map(|link| link.queues()).collect()
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        self.shared.stats.snapshot()
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.stop();
    }
}
