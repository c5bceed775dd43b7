//! Completions and what their statuses mean.

use std::borrow::Cow;

use rdma_sys::ibv_wc;

/// A completion, laid out as `struct ibv_wc`. With a status other than [`SUCCESS`], only `wr_id`, `status`, `qp_num`
/// and `vendor_err` mean something.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Wc {
    /// The work request's id.
    pub wr_id: u64,
    /// One of the constants of this module, or a number from a newer driver.
    pub status: u32,
    /// `enum ibv_wc_opcode`.
    pub opcode: u32,
    /// The device's own code for the error.
    pub vendor_err: u32,
    /// Bytes that a read or a message brought.
    pub byte_len: u32,
    imm_data: u32,
    /// The queue pair's number.
    pub qp_num: u32,
    src_qp: u32,
    wc_flags: u32,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

const _: () = assert!(size_of::<Wc>() == size_of::<ibv_wc>() && align_of::<Wc>() == align_of::<ibv_wc>());
const _: () = assert!(std::mem::offset_of!(Wc, wr_id) == std::mem::offset_of!(ibv_wc, wr_id));
const _: () = assert!(std::mem::offset_of!(Wc, status) == std::mem::offset_of!(ibv_wc, status));
const _: () = assert!(std::mem::offset_of!(Wc, opcode) == std::mem::offset_of!(ibv_wc, opcode));
const _: () = assert!(std::mem::offset_of!(Wc, vendor_err) == std::mem::offset_of!(ibv_wc, vendor_err));
const _: () = assert!(std::mem::offset_of!(Wc, byte_len) == std::mem::offset_of!(ibv_wc, byte_len));
const _: () = assert!(std::mem::offset_of!(Wc, qp_num) == std::mem::offset_of!(ibv_wc, qp_num));
const _: () =
    assert!(std::mem::offset_of!(Wc, dlid_path_bits) == std::mem::offset_of!(ibv_wc, dlid_path_bits));

macro_rules! statuses {
    ($($name:ident = $value:literal, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: u32 = $value;
        )*

        /// Name and meaning, by value.
        const STATUSES: &[(&str, &str)] = &[$((stringify!($name), concat!(stringify!($name), " (", $value, "): ", $meaning)),)*];
    };
}

statuses! {
    SUCCESS = 0, "done";
    LOC_LEN_ERR = 1, "longer than the local region or the device allows";
    LOC_QP_OP_ERR = 2, "the queue pair could not process the work request";
    LOC_EEC_OP_ERR = 3, "local end-to-end context error";
    LOC_PROT_ERR = 4, "the local key does not cover the local address";
    WR_FLUSH_ERR = 5, "given up because the queue pair had failed before";
    MW_BIND_ERR = 6, "memory window error";
    BAD_RESP_ERR = 7, "the peer's answer was not understood";
    LOC_ACCESS_ERR = 8, "the local region does not permit the access";
    REM_INV_REQ_ERR = 9, "the peer's NIC found the request invalid";
    REM_ACCESS_ERR = 10, "the remote key does not cover the remote address or does not permit the access: not registered any more?";
    REM_OP_ERR = 11, "the peer's NIC could not carry it out";
    RETRY_EXC_ERR = 12, "the peer did not answer: host, process, link or queue pair gone, or no route to its GID";
    RNR_RETRY_EXC_ERR = 13, "the peer was not ready to receive";
    LOC_RDD_VIOL_ERR = 14, "local reliable datagram domain error";
    REM_INV_RD_REQ_ERR = 15, "remote reliable datagram request error";
    REM_ABORT_ERR = 16, "the peer aborted the operation";
    INV_EECN_ERR = 17, "invalid end-to-end context number";
    INV_EEC_STATE_ERR = 18, "invalid end-to-end context state";
    FATAL_ERR = 19, "the device or the queue pair is broken";
    RESP_TIMEOUT_ERR = 20, "no response in time";
    GENERAL_ERR = 21, "other error of the device";
    TM_ERR = 22, "tag matching error";
    TM_RNDV_INCOMPLETE = 23, "tag matching rendezvous incomplete";
}

/// A status's name, number and meaning; unknown ones by number.
pub fn wc_status_text(status: u32) -> Cow<'static, str> {
    let known = usize::try_from(status).ok().and_then(|status| STATUSES.get(status));
    known.map_or_else(|| format!("completion status {status}").into(), |(_, text)| Cow::Borrowed(*text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_stands_at_its_own_number() {
        for (value, (name, text)) in STATUSES.iter().enumerate() {
            assert!(text.starts_with(&format!("{name} ({value}): ")), "{text}");
        }
        assert_eq!((STATUSES.len(), STATUSES[WR_FLUSH_ERR as usize].0), (24, "WR_FLUSH_ERR"));
        assert!(wc_status_text(RETRY_EXC_ERR).starts_with("RETRY_EXC_ERR (12): the peer did not answer"));
        assert_eq!(wc_status_text(99), "completion status 99");
    }
}
