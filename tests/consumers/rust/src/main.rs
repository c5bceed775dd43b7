//! Moves bytes between two engines by the generated bindings, checks them, and panics in between: a Rust program that links
//! the static library has the run-time of its own toolchain, too.

#[allow(non_camel_case_types, non_upper_case_globals, non_snake_case, dead_code, clippy::all)]
mod te {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

use std::ffi::{c_char, c_void, CStr};
use std::ptr::null;

const BYTES: usize = 3 << 20;

struct Engine(te::transfer_engine_t);

impl Engine {
    fn new(memory: &mut [u8]) -> Engine {
        // SAFETY: every text is a C string, and the memory outlives the engine in `main`.
        unsafe {
            let host = c"127.0.0.1".as_ptr();
            let engine = te::createTransferEngine(c"P2PHANDSHAKE".as_ptr(), host, c"".as_ptr(), 0, 0);
            assert!(!engine.is_null(), "{}", last_error());
            assert!(
                !te::installTransport(engine, c"tcp".as_ptr(), null::<*mut c_void>().cast_mut()).is_null(),
                "{}",
                last_error()
            );
            let start = memory.as_mut_ptr().cast();
            assert_eq!(
                te::registerLocalMemory(engine, start, memory.len(), c"cpu:0".as_ptr(), 1),
                0,
                "{}",
                last_error()
            );
            Engine(engine)
        }
    }

    fn name(&self) -> String {
        let mut name = [0 as c_char; 64];
        // SAFETY: the buffer is as long as it is said to be, and ends with a zero in any case.
        unsafe {
            assert_eq!(te::getLocalIpAndPort(self.0, name.as_mut_ptr(), name.len()), 0, "{}", last_error());
            CStr::from_ptr(name.as_ptr()).to_str().unwrap().to_string()
        }
    }

    fn write(&self, source: &[u8], peer: &str, target: u64) {
        let peer = std::ffi::CString::new(peer).unwrap();
        // SAFETY: `source` outlives the batch, which is waited for.
        unsafe {
            let segment = te::openSegment(self.0, peer.as_ptr());
            assert!(segment >= 0, "{}", last_error());
            let batch = te::allocateBatchID(self.0, 1);
            let mut request: te::transfer_request = std::mem::zeroed();
            request.opcode = te::OPCODE_WRITE as _;
            request.source = source.as_ptr().cast_mut().cast();
            request.target_id = segment;
            request.target_offset = target;
            request.length = source.len() as _;
            assert_eq!(te::submitTransfer(self.0, batch, &mut request, 1), 0, "{}", last_error());
            assert_eq!(te::mte_wait_batch(self.0, batch, 60_000), 0, "{}", last_error());
            let mut status: te::transfer_status = std::mem::zeroed();
            assert_eq!(te::getTransferStatus(self.0, batch, 0, &mut status), 0, "{}", last_error());
            assert_eq!(status.status, te::STATUS_COMPLETED as _);
            assert_eq!(te::freeBatchID(self.0, batch), 0, "{}", last_error());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the handle is used no more.
        unsafe { te::destroyTransferEngine(self.0) };
    }
}

fn last_error() -> String {
    let mut text = [0 as c_char; 512];
    // SAFETY: as for `name`.
    unsafe {
        te::mte_last_error(text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

fn main() {
    let mut source: Vec<u8> = (0..BYTES).map(|n| (n * 31 + (n >> 8)) as u8 | 1).collect();
    let mut target = vec![0u8; BYTES];
    let (from, to) = (Engine::new(&mut source), Engine::new(&mut target));
    from.write(&source, &to.name(), target.as_ptr() as u64);
    assert!(source == target, "the bytes differ");
    std::panic::set_hook(Box::new(|_| {}));
    assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
    from.write(&source[..1000], &to.name(), target.as_ptr() as u64 + 7);
    assert!(target[7..1007] == source[..1000], "the bytes differ after a panic");
    println!("moved");
}
