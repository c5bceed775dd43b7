//! Where a flight comes from, and goes back to when its rail has failed it.

use std::sync::Arc;

use super::fence::Fence;
use super::flight::Flight;
use super::route::Route;
use crate::error::Result;
use crate::transport::Link;

/// A link, as the code that works on its flights sees it.
pub(super) trait Origin: Link {
    /// Leads to the peer.
    fn route(&self) -> &Arc<dyn Route>;

    /// An error once the link is closed.
    fn check_open(&self) -> Result<()>;

    /// Bit in `Flight::avoid` of the rail from the NIC with index `nic` to `peer`; 0 if it is none of this link's.
    fn bit_of(&self, nic: usize, peer: &str) -> u64;

    /// Whether there is a rail that may carry data now and that the flight does not avoid.
    fn has_other_rail(&self, flight: &Flight) -> bool;

    /// Time until a rail that may carry data now between two addresses would be through with what it has, ns: the least one.
    fn least_cost_ns(&self, local: u64, remote: u64) -> Option<u64>;

    /// Id of the peer's start, if it is an engine of this project.
    fn incarnation(&self) -> Option<String>;

    /// Puts a flight on a rail.
    fn place(&self, flight: Flight);

    /// Keeps a flight for [`Origin::place_later`], which raises the fence `behind` first. `false`: the link is closed,
    /// and the flight has failed.
    fn keep(&self, flight: Flight, behind: Option<Fence>) -> bool;

    /// Places what is kept, on the control plane. The descriptor is read again first if `reread`.
    fn place_later(&self, reread: bool);

    /// Takes out the kept flights for which `wanted` holds.
    fn take_kept(&self, wanted: &dyn Fn(&Flight) -> bool) -> Vec<Flight>;
}
