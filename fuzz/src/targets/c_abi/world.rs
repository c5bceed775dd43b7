//! The engines of this process, which last from one input to the next unless an input ends them, and what the calls return.

use std::ffi::{c_char, c_int, c_void, CString};

use transfer_engine::error::codes;
use transfer_engine::ffi::create::mte_create_engine;
use transfer_engine::ffi::engine::{destroyTransferEngine, getLocalIpAndPort};

use super::arena::Arena;

/// An engine, and what was registered with it.
pub struct Engine {
    pub handle: *mut c_void,
    /// Its segment's name.
    pub name: CString,
    /// First byte and bytes of each region.
    pub regions: Vec<(u64, u64)>,
    /// Ids of segments, and how often each was opened.
    pub segments: Vec<i32>,
    pub shared: Vec<*mut c_void>,
}

/// What lasts.
pub struct World {
    pub engines: [Option<Engine>; 2],
    /// Handles of engines that were destroyed.
    pub gone: Vec<*mut c_void>,
    pub arena: Arena,
}

impl World {
    pub fn new() -> Self {
        World { engines: [None, None], gone: Vec::new(), arena: Arena::new() }
    }

    /// Creates the engine if it is not there.
    pub fn create(&mut self, which: usize) {
        if self.engines[which].is_some() {
            return;
        }
        // SAFETY: C strings.
        let handle = unsafe {
            mte_create_engine(
                c"P2PHANDSHAKE".as_ptr(),
                c"127.0.0.1".as_ptr(),
                c"tcp".as_ptr(),
                std::ptr::null(),
            )
        };
        assert!(!handle.is_null(), "an engine cannot be created: {}", super::last_error());
        assert!(!self.gone.contains(&handle), "a handle was issued twice");
        let mut name = [0 as c_char; 64];
        // SAFETY: room for that many bytes.
        assert_eq!(unsafe { getLocalIpAndPort(handle, name.as_mut_ptr(), name.len()) }, 0);
        // SAFETY: a C string, which the call has written.
        let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_owned();
        let (regions, segments, shared) = (Vec::new(), Vec::new(), Vec::new());
        self.engines[which] = Some(Engine { handle, name, regions, segments, shared });
    }

    /// Destroys the engine if it is there.
    pub fn destroy(&mut self, which: usize) {
        let Some(engine) = self.engines[which].take() else { return };
        // SAFETY: any handle is safe.
        unsafe { destroyTransferEngine(engine.handle) };
        self.gone.push(engine.handle);
        for memory in engine.shared {
            // SAFETY: memory of that function's counterpart, which nobody uses any more.
            code(unsafe { transfer_engine::ffi::shared::mte_free_shared(std::ptr::null_mut(), memory) });
        }
    }
}

/// Fails unless a call returned 0 or a code of `error.h`.
pub fn code(returned: c_int) -> c_int {
    let known = returned == 0 || codes::TABLE.iter().any(|row| row.value == returned);
    assert!(known, "{returned} is no code: {}", super::last_error());
    returned
}
