//! Reliable-connected queue pairs: their way to RTS, and posting.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::fmt;
use std::net::Ipv6Addr;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdma_sys::{
    ibv_access_flags as access, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask as mask, ibv_qp_cap, ibv_qp_init_attr,
    ibv_qp_state, ibv_qp_type, ibv_recv_wr, ibv_sge,
};

use super::cq::Cq;
use super::library::{last_errno, note_leak, refused, returned_errno, PostRecv, PostSend};
use super::memory::Pd;
use super::port::mtu_code;
use super::wr::{Chain, PostError};
use crate::error::{Code, Error, Result};

/// Sizes of a send queue.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Work requests that were posted and whose completion, or that of a later one, was not polled.
    pub max_wr: u32,
    /// Scatter-gather entries of a work request.
    pub max_sge: u32,
    /// Bytes of a work request with inline data.
    pub max_inline: u32,
}

/// How to reach a peer's queue pair.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Local port.
    pub port: u8,
    /// Bytes; 256, 512, 1024, 2048 or 4096.
    pub mtu: u32,
    /// The peer's GID.
    pub gid: [u8; 16],
    /// Index of our GID.
    pub sgid_index: u8,
    /// Hops that packets survive.
    pub hop_limit: u8,
    /// Traffic class of the packets.
    pub traffic_class: u8,
    /// InfiniBand service level, or the Ethernet priority.
    pub service_level: u8,
    /// The peer's LID; 0 on Ethernet.
    pub lid: u16,
    /// The peer's queue pair.
    pub qp_number: u32,
    /// Reads of the peer that are answered at the same time.
    pub rd_atomic: u8,
}

/// A reliable-connected queue pair. Peers read and write through it; only that of a [`super::Receiver`] receives.
#[derive(Debug)]
pub struct Qp {
    raw: NonNull<ibv_qp>,
    post_send: PostSend,
    post_recv: Option<PostRecv>,
    number: u32,
    caps: Caps,
    cq: Arc<Cq>,
    // Held, because the domain must outlive its queue pairs.
    _pd: Arc<Pd>,
}

// SAFETY: libibverbs' functions on a queue pair may be called from any thread, and concurrently.
unsafe impl Send for Qp {}
// SAFETY: as above; we never write to the struct.
unsafe impl Sync for Qp {}

/// Code of the local acknowledge timeout: 4.096 µs × 2^14 = 67 ms. Upstream's value, as the next two are.
const TIMEOUT: u8 = 14;
/// How often a packet is sent again without an acknowledgement, and to a peer that is not ready to receive. The most
/// that three bits hold; for the second it means for ever.
const RETRIES: u8 = 7;
/// Code of the pause that a peer makes when our end was not ready to receive: 0.64 ms.
const MIN_RNR_TIMER: u8 = 12;

impl Qp {
    /// A queue pair in RESET whose completions go to `cq`. `ERR_ENDPOINT` with errno.
    pub fn create(pd: &Arc<Pd>, cq: &Arc<Cq>, caps: &Caps) -> Result<Self> {
        Self::create_with(pd, cq, caps, 1)
    }

    /// The same with room for `max_recv` receives.
    pub(super) fn create_with(pd: &Arc<Pd>, cq: &Arc<Cq>, caps: &Caps, max_recv: u32) -> Result<Self> {
        let context = &pd.context;
        if !Arc::ptr_eq(context, cq.context()) {
            let text = format!("completion queue of {} for {}", cq.context().name(), context.name());
            return Err(Error::invalid(text));
        }
        let Caps { max_wr, max_sge, max_inline } = *caps;
        let what = format!(
            "cannot create a queue pair on RDMA device {} (max_send_wr {max_wr}, max_send_sge {max_sge}, \
             max_inline_data {max_inline})",
            context.name()
        );
        // SAFETY: an open context; its functions never change.
        let ops = unsafe { (*context.raw.as_ptr()).ops };
        let Some(post_send) = ops.post_send else {
            return Err(refused(Code::Endpoint, what, libc::EOPNOTSUPP));
        };
        let mut request = ibv_qp_init_attr {
            qp_context: ptr::null_mut(),
            send_cq: cq.raw.as_ptr(),
            recv_cq: cq.raw.as_ptr(),
            srq: ptr::null_mut(),
            cap: ibv_qp_cap {
                max_send_wr: max_wr,
                max_recv_wr: max_recv,
                max_send_sge: max_sge,
                max_recv_sge: 1,
                max_inline_data: max_inline,
            },
            qp_type: ibv_qp_type::IBV_QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: a live domain, a live queue of the same context, and a live struct.
        let raw = NonNull::new(unsafe { (context.library.ibv_create_qp)(pd.raw.as_ptr(), &mut request) });
        let raw = raw.ok_or_else(|| {
            let errno = last_errno();
            let advice = match errno {
                libc::ENOMEM => " (memory, ulimit -l or the device's queue pairs are used up)",
                libc::EINVAL => " (more than the device allows?)",
                _ => "",
            };
            refused(Code::Endpoint, format!("{what}{advice}"), errno)
        })?;
        // SAFETY: a queue pair just made.
        let number = unsafe { (*raw.as_ptr()).qp_num };
        let caps = Caps {
            max_wr: request.cap.max_send_wr,
            max_sge: request.cap.max_send_sge,
            max_inline: request.cap.max_inline_data,
        };
        Ok(Qp { raw, post_send, post_recv: ops.post_recv, number, caps, cq: cq.clone(), _pd: pd.clone() })
    }

    /// Its number, which peers connect to.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What the device granted: at least what was asked for.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// RESET to INIT, with full rights for the peer; without atomics if the device has none.
    pub fn init(&self, port: u8, pkey_index: u16) -> Result<()> {
        let basic = access::IBV_ACCESS_LOCAL_WRITE.0
            | access::IBV_ACCESS_REMOTE_READ.0
            | access::IBV_ACCESS_REMOTE_WRITE.0;
        let attempt = |rights| self.init_with(port, pkey_index, rights);
        attempt(basic | access::IBV_ACCESS_REMOTE_ATOMIC.0).or_else(|error| {
            if error.errno() == libc::EINVAL {
                attempt(basic)
            } else {
                Err(error)
            }
        })
    }

    /// RESET to INIT, with no rights for the peer but to send.
    pub(super) fn init_closed(&self, port: u8, pkey_index: u16) -> Result<()> {
        self.init_with(port, pkey_index, access::IBV_ACCESS_LOCAL_WRITE.0)
    }

    fn init_with(&self, port: u8, pkey_index: u16, rights: c_uint) -> Result<()> {
        let mut attr = attributes(ibv_qp_state::IBV_QPS_INIT);
        attr.port_num = port;
        attr.pkey_index = pkey_index;
        attr.qp_access_flags = rights;
        let given = mask::IBV_QP_PORT.0 | mask::IBV_QP_PKEY_INDEX.0 | mask::IBV_QP_ACCESS_FLAGS.0;
        let values = format_args!("port_num {port}, pkey_index {pkey_index}, qp_access_flags {rights:#x}");
        self.modify(&mut attr, given, "RESET", "INIT", values)
    }

    /// Posts a message of `len` bytes at `addr`. Errno. Does not block. The engine sends none; its tests are the peer.
    ///
    /// # Safety
    /// The range stays mapped and registered by `lkey` until the message completes or the queue pair is gone.
    #[cfg(feature = "internals")]
    pub unsafe fn post_message(
        &self,
        id: u64,
        addr: u64,
        len: u32,
        lkey: u32,
    ) -> std::result::Result<(), i32> {
        let mut sge = ibv_sge { addr, length: len, lkey };
        // SAFETY: numbers and pointers, for which zeroes are valid.
        let mut request: rdma_sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.wr_id = id;
        (request.sg_list, request.num_sge) = (&mut sge, 1);
        request.opcode = rdma_sys::ibv_wr_opcode::IBV_WR_SEND;
        request.send_flags = rdma_sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
        let mut bad = ptr::null_mut();
        // SAFETY: a live queue pair and a list of one, which the call does not keep; the caller vouches for the range.
        match unsafe { (self.post_send)(self.raw.as_ptr(), &mut request, &mut bad) } {
            0 => Ok(()),
            returned => Err(returned_errno(returned)),
        }
    }

    /// Posts a receive of one message. Errno. Does not block.
    ///
    /// # Safety
    /// The range stays mapped and registered by `lkey`, and nobody else uses it, until the receive completes or the queue
    /// pair is gone.
    pub(super) unsafe fn post_recv(
        &self,
        id: u64,
        addr: u64,
        len: u32,
        lkey: u32,
    ) -> std::result::Result<(), i32> {
        let Some(post) = self.post_recv else { return Err(libc::EOPNOTSUPP) };
        let mut sge = ibv_sge { addr, length: len, lkey };
        let mut request = ibv_recv_wr { wr_id: id, next: ptr::null_mut(), sg_list: &mut sge, num_sge: 1 };
        let mut bad = ptr::null_mut();
        // SAFETY: a live queue pair and a list of one, which the call does not keep; the caller vouches for the range.
        match unsafe { post(self.raw.as_ptr(), &mut request, &mut bad) } {
            0 => Ok(()),
            returned => Err(returned_errno(returned)),
        }
    }

    /// INIT to RTR: the peer may send from now on. errno EINVAL and ENODATA usually mean that a GID does not fit.
    pub fn receive_ready(&self, to: &Path) -> Result<()> {
        let path_mtu = mtu_code(to.mtu).ok_or_else(|| {
            Error::new(Code::Endpoint, format!("path_mtu {} is none of 256, 512, 1024, 2048, 4096", to.mtu))
        })?;
        let mut attr = attributes(ibv_qp_state::IBV_QPS_RTR);
        attr.path_mtu = path_mtu;
        attr.dest_qp_num = to.qp_number;
        attr.rq_psn = 0;
        attr.max_dest_rd_atomic = to.rd_atomic;
        attr.min_rnr_timer = MIN_RNR_TIMER;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.grh.dgid.raw = to.gid;
        attr.ah_attr.grh.sgid_index = to.sgid_index;
        attr.ah_attr.grh.hop_limit = to.hop_limit;
        attr.ah_attr.grh.traffic_class = to.traffic_class;
        attr.ah_attr.dlid = to.lid;
        attr.ah_attr.sl = to.service_level;
        attr.ah_attr.port_num = to.port;
        let given = mask::IBV_QP_AV.0
            | mask::IBV_QP_PATH_MTU.0
            | mask::IBV_QP_DEST_QPN.0
            | mask::IBV_QP_RQ_PSN.0
            | mask::IBV_QP_MAX_DEST_RD_ATOMIC.0
            | mask::IBV_QP_MIN_RNR_TIMER.0;
        let values = format_args!(
            "path_mtu {}, dest_qp_num {:#x}, rq_psn 0, max_dest_rd_atomic {}, min_rnr_timer {MIN_RNR_TIMER}, ah_attr: \
             dgid {}, sgid_index {}, hop_limit {}, traffic_class {}, dlid {}, sl {}, port_num {}",
            to.mtu,
            to.qp_number,
            to.rd_atomic,
            Ipv6Addr::from(to.gid),
            to.sgid_index,
            to.hop_limit,
            to.traffic_class,
            to.lid,
            to.service_level,
            to.port
        );
        self.modify(&mut attr, given, "INIT", "RTR", values)
    }

    /// RTR to RTS: we may send from now on, with at most `rd_atomic` reads in flight.
    pub fn send_ready(&self, rd_atomic: u8) -> Result<()> {
        let mut attr = attributes(ibv_qp_state::IBV_QPS_RTS);
        attr.timeout = TIMEOUT;
        attr.retry_cnt = RETRIES;
        attr.rnr_retry = RETRIES;
        attr.sq_psn = 0;
        attr.max_rd_atomic = rd_atomic;
        let given = mask::IBV_QP_TIMEOUT.0
            | mask::IBV_QP_RETRY_CNT.0
            | mask::IBV_QP_RNR_RETRY.0
            | mask::IBV_QP_SQ_PSN.0
            | mask::IBV_QP_MAX_QP_RD_ATOMIC.0;
        let values = format_args!(
            "timeout {TIMEOUT}, retry_cnt {RETRIES}, rnr_retry {RETRIES}, sq_psn 0, max_rd_atomic {rd_atomic}"
        );
        self.modify(&mut attr, given, "RTR", "RTS", values)
    }

    /// Any state to ERR: everything that was posted completes, with an error unless it was done.
    pub fn error(&self) -> Result<()> {
        self.modify(&mut attributes(ibv_qp_state::IBV_QPS_ERR), 0, "any state", "ERR", format_args!("none"))
    }

    /// Posts the chain with one doorbell and empties it. Does not block.
    #[inline]
    pub fn post(&self, chain: &mut Chain) -> std::result::Result<(), PostError> {
        let first = chain.take();
        if first.is_null() {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        // SAFETY: a live queue pair and a terminated list, which the call does not keep.
        match unsafe { (self.post_send)(self.raw.as_ptr(), first, &mut bad) } {
            0 => Ok(()),
            returned => Err(PostError::new(first, bad, returned_errno(returned))),
        }
    }

    /// `ERR_ENDPOINT` names the states, the attributes and, if it can be found out, what is wrong.
    fn modify(
        &self,
        attr: &mut ibv_qp_attr,
        given: c_uint,
        from: &str,
        to: &str,
        values: fmt::Arguments<'_>,
    ) -> Result<()> {
        let library = self.cq.context().library;
        let given = (given | mask::IBV_QP_STATE.0) as c_int;
        // SAFETY: a live queue pair and a live struct.
        let returned = unsafe { (library.ibv_modify_qp)(self.raw.as_ptr(), attr, given) };
        if returned == 0 {
            return Ok(());
        }
        let errno = returned_errno(returned);
        let device = self.cq.context().name();
        let what = format!(
            "cannot take queue pair {:#x} of {device} from {from} to {to} by ibv_modify_qp ({}; attributes: {values})",
            self.number,
            self.cause(errno, from, to)
        );
        Err(refused(Code::Endpoint, what, errno))
    }

    fn cause(&self, errno: i32, from: &str, to: &str) -> String {
        let state = self.state();
        match errno {
            _ if state != from && from != "any state" => format!("it is in {state}"),
            libc::EINVAL | libc::ENODATA if to == "RTR" => {
                "do the GID at sgid_index and dgid have the same type and network, is port_num up to path_mtu?".into()
            }
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH if to == "RTR" => {
                "no route to dgid, or nobody answers ARP for it".into()
            }
            libc::EINVAL => "an attribute does not suit the device".into(),
            _ => format!("it is in {state}"),
        }
    }

    fn state(&self) -> String {
        let mut attr = attributes(0);
        // SAFETY: numbers and null pointers, for which zeroes are valid.
        let mut init: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        let asked = mask::IBV_QP_STATE.0 as c_int;
        let query = self.cq.context().library.ibv_query_qp;
        // SAFETY: a live queue pair and two live structs.
        if unsafe { query(self.raw.as_ptr(), &mut attr, asked, &mut init) } != 0 {
            return "an unknown state".into();
        }
        const STATES: [&str; 7] = ["RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"];
        let name = usize::try_from(attr.qp_state).ok().and_then(|state| STATES.get(state));
        name.map_or_else(|| format!("state {}", attr.qp_state), |name| name.to_string())
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        let context = self.cq.context();
        // SAFETY: created, and destroyed once. Waits for `next_event` of another thread.
        let returned = unsafe { (context.library.ibv_destroy_qp)(self.raw.as_ptr()) };
        note_leak("a queue pair", context.name(), returned);
    }
}

/// Attributes for a step to `state`; all others zero.
fn attributes(state: ibv_qp_state::Type) -> ibv_qp_attr {
    // SAFETY: plain numbers, for which zeroes are valid.
    let mut attr: ibv_qp_attr = unsafe { std::mem::zeroed() };
    attr.qp_state = state;
    attr
}
