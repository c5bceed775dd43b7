//! Calls about engines, memory, segments and the rest.

use std::ffi::{c_char, c_int, c_void, CStr};

use transfer_engine::ffi::create::{getRpcPort, mte_local_topology, mte_only_transport, mte_transport};
use transfer_engine::ffi::engine::{getLocalIpAndPort, installTransport, uninstallTransport};
use transfer_engine::ffi::ext::{mte_last_error_info, mte_segment_buffers, mte_strerror};
use transfer_engine::ffi::memory::{
    registerLocalMemory, registerLocalMemoryBatch, unregisterLocalMemory, unregisterLocalMemoryBatch,
};
use transfer_engine::ffi::notify::{freeNotifsMsgBuf, genNotifyInEngine, getNotifsFromEngine};
use transfer_engine::ffi::peer::{
    checkSegmentStatus, mte_overlaps, mte_probe_peer, mte_segment_descriptor, probePeerAliveByID,
};
use transfer_engine::ffi::segment::{
    closeSegment, openSegment, openSegmentNoCache, removeLocalSegment, syncSegmentCache, warmupEfaSegment,
};
use transfer_engine::ffi::shared::{mte_allocate_shared, mte_free_shared};
use transfer_engine::ffi::stats::{getNicLoadStats, showLinks};
use transfer_engine::ffi::types::{buffer_entry, nic_load_stat, notify_msg};

use super::arena::BYTES;
use super::world::{code, Engine};
use super::{last_error, Play};

impl Play<'_> {
    /// Makes the next call.
    pub fn call(&mut self) {
        match self.input.byte() % 34 {
            0 => (0..2).for_each(|which| self.world.create(which)),
            1 => self.destroy(),
            2..=4 => self.register(),
            5 => self.unregister(),
            6 => self.register_several(),
            7 => self.unregister_several(),
            8..=10 => self.open(),
            11 => self.close(),
            12 => self.remove(),
            13..=14 => self.allocate(),
            15..=18 => self.submit(false),
            19 => self.submit(true),
            20..=21 => self.status(),
            22 => self.free(),
            23..=24 => self.wait(),
            25 => self.cancel(),
            26 => self.ask(),
            27 => self.arrays(self.input.0.len().is_multiple_of(2)),
            28 => self.pages(self.input.0.len().is_multiple_of(2)),
            29 => self.notify(),
            30 => self.install(),
            31 => self.share(),
            32 => self.ask_engine(),
            _ => self.ask_segment(),
        }
    }

    /// An address in the arena, or NULL.
    pub fn address(&mut self) -> u64 {
        match self.input.short() {
            u16::MAX => 0,
            offset => self.world.arena.addr(u64::from(offset) * 4 % BYTES as u64),
        }
    }

    fn known(&mut self, which: usize) -> Option<&mut Engine> {
        self.world.engines.get_mut(which)?.as_mut()
    }

    fn location(&mut self) -> *const c_char {
        let good = c"cpu:0".as_ptr();
        self.input.pick(&[
            good,
            good,
            c"*".as_ptr(),
            c"segments:4096:0,1".as_ptr(),
            c"".as_ptr(),
            std::ptr::null(),
        ])
    }

    fn destroy(&mut self) {
        // Seldom: it takes long.
        let choice = self.input.byte();
        if choice < 32 {
            let which = usize::from(choice & 1);
            self.world.destroy(which);
            self.destroyed(which);
        }
    }

    fn register(&mut self) {
        let ((which, handle), addr, len) = (self.engine(), self.address(), self.input.length());
        let (location, remote) = (self.location(), c_int::from(self.input.byte() < 0xf0));
        // SAFETY: addresses are safe, and the location is a C string.
        let returned =
            code(unsafe { registerLocalMemory(handle, addr as *mut c_void, len as usize, location, remote) });
        let Some(engine) = self.known(which) else { return assert!(returned < 0) };
        let overlaps =
            engine.regions.iter().any(|r| addr < r.0.saturating_add(r.1) && r.0 < addr.saturating_add(len));
        if returned == 0 {
            assert!(addr != 0 && len != 0 && !overlaps && addr.checked_add(len).is_some());
            engine.regions.push((addr, len));
        }
        assert!(returned != -7 || overlaps, "{}", last_error());
    }

    fn unregister(&mut self) {
        let (which, handle) = self.engine();
        let other = self.address();
        let choice = usize::from(self.input.byte());
        let Some(engine) = self.known(which) else {
            // SAFETY: any address is safe.
            return assert!(code(unsafe { unregisterLocalMemory(handle, other as *mut c_void) }) < 0);
        };
        let addr = engine.regions.get(choice % (engine.regions.len() + 1)).map_or(other, |region| region.0);
        // SAFETY: any address is safe.
        let returned = code(unsafe { unregisterLocalMemory(handle, addr as *mut c_void) });
        let place = engine.regions.iter().position(|region| region.0 == addr);
        assert_eq!(returned == 0, place.is_some(), "{}", last_error());
        engine.regions.retain(|region| region.0 != addr);
    }

    fn register_several(&mut self) {
        let ((which, handle), count) = (self.engine(), usize::from(self.input.byte() % 4));
        let mut entries: Vec<_> = (0..count)
            .map(|_| buffer_entry {
                addr: self.address() as *mut c_void,
                length: self.input.length() as usize,
            })
            .collect();
        let location = self.location();
        let list = if self.input.byte() < 0xf0 { entries.as_mut_ptr() } else { std::ptr::null_mut() };
        // SAFETY: `count` entries and a C string.
        let returned = code(unsafe { registerLocalMemoryBatch(handle, list, count, location) });
        match self.known(which) {
            Some(engine) if returned == 0 => {
                engine.regions.extend(entries.iter().map(|entry| (entry.addr as u64, entry.length as u64)));
            }
            known => assert!(known.is_some() || returned < 0),
        }
    }

    fn unregister_several(&mut self) {
        let (which, handle) = self.engine();
        let none = self.address();
        let Some(engine) = self.known(which) else { return };
        let mut list: Vec<_> = engine.regions.iter().take(2).map(|region| region.0 as *mut c_void).collect();
        let all = list.len();
        if !engine.regions.iter().any(|region| region.0 == none) && none.is_multiple_of(8) {
            list.push(none as *mut c_void);
        }
        // SAFETY: as many addresses as the count says.
        let returned = code(unsafe { unregisterLocalMemoryBatch(handle, list.as_mut_ptr(), list.len()) });
        assert_eq!(returned == 0, list.len() == all, "{}", last_error());
        engine.regions.drain(..all);
    }

    /// The name of an engine, or of none.
    fn name(&mut self) -> *const c_char {
        let choice = self.input.byte();
        match choice {
            0xf0..=0xf3 => c"127.0.0.1:1".as_ptr(),
            0xf4..=0xf7 => c"".as_ptr(),
            0xf8..=0xfb => c"\xff".as_ptr(),
            0xfc.. => std::ptr::null(),
            _ => match &self.world.engines[usize::from(choice & 1)] {
                Some(engine) => engine.name.as_ptr(),
                None => c"127.0.0.1:1".as_ptr(),
            },
        }
    }

    fn open(&mut self) {
        let ((which, handle), name) = (self.engine(), self.name());
        let call = if self.input.byte().is_multiple_of(4) { openSegmentNoCache } else { openSegment };
        // SAFETY: NULL or a C string.
        let id = unsafe { call(handle, name) };
        if id < 0 {
            code(id);
            return;
        }
        self.known(which).expect("an engine that is none has opened a segment").segments.push(id);
    }

    /// The id of a segment that is open, or of none; and the engine.
    fn segment(&mut self) -> (usize, *mut c_void, i32) {
        let (which, handle) = self.engine();
        let wild = self.input.pick(&[0, -1, i32::MAX, 3, i32::MIN]);
        let choice = usize::from(self.input.byte());
        let open = self.known(which).map_or(&[][..], |engine| &engine.segments);
        (which, handle, open.get(choice % (open.len() + 1)).copied().unwrap_or(wild))
    }

    fn close(&mut self) {
        let (which, handle, id) = self.segment();
        // SAFETY: any id is safe.
        let returned = code(unsafe { closeSegment(handle, id) });
        assert_eq!(returned == 0, which < 2, "{}", last_error());
    }

    fn remove(&mut self) {
        let ((_, handle), name) = (self.engine(), self.name());
        // SAFETY: NULL or C strings.
        unsafe {
            match self.input.byte() % 4 {
                0 => code(removeLocalSegment(handle, name)),
                1 => code(warmupEfaSegment(handle, name)),
                2 => code(mte_probe_peer(handle, name)),
                _ => code(syncSegmentCache(handle)),
            }
        };
    }

    fn notify(&mut self) {
        let (which, handle, id) = self.segment();
        let mut text = *b"n\xc3\xa9\0";
        let mut bad = *b"\xc3\0";
        let (good, bad) = (text.as_mut_ptr().cast(), bad.as_mut_ptr().cast());
        let msg = self.input.pick(&[good, good, bad, std::ptr::null_mut()]);
        // SAFETY: NULL or C strings.
        let returned = code(unsafe { genNotifyInEngine(handle, id as u64, notify_msg { name: good, msg }) });
        assert!(returned < 0 || which < 2 && msg == good);
        let mut size = -1;
        // SAFETY: a valid pointer; then what the call gave.
        unsafe {
            let list = getNotifsFromEngine(handle, &mut size);
            assert!(size >= 0 && list.is_null() == (size == 0));
            (0..size as usize)
                .for_each(|at| assert!(!CStr::from_ptr((*list.add(at)).name).to_bytes().is_empty()));
            assert_eq!(freeNotifsMsgBuf(list, size), 0);
            assert!(getNotifsFromEngine(handle, std::ptr::null_mut()).is_null());
            assert!(code(freeNotifsMsgBuf(std::ptr::null_mut(), -1)) < 0);
        }
    }

    fn install(&mut self) {
        let (which, handle) = self.engine();
        let name =
            [c"shm", c"tcp", c"posix_shm", c"echo", c"warp", c"efa"][usize::from(self.input.byte()) % 6];
        // SAFETY: C strings.
        unsafe {
            let transport = installTransport(handle, name.as_ptr(), std::ptr::null_mut());
            assert!(transport.is_null() || which < 2 && transport == mte_transport(handle, name.as_ptr()));
            code(uninstallTransport(handle, name.as_ptr()));
            assert!((-1..=1).contains(&mte_only_transport(handle, name.as_ptr())));
            assert!(installTransport(handle, std::ptr::null(), std::ptr::null_mut()).is_null());
        }
    }

    fn share(&mut self) {
        let ((which, handle), len) = (self.engine(), self.input.length());
        let (flags, node) =
            (self.input.pick(&[0, 0, 0, 2, -1]), self.input.pick(&[-1, -1, 0, 99, c_int::MIN]));
        // Much of it would be taken from whoever else uses the machine.
        let len = if len > 1 << 20 { 0 } else { len };
        let mut memory = std::ptr::null_mut();
        // SAFETY: a valid pointer.
        let returned = code(unsafe { mte_allocate_shared(handle, len as usize, flags, node, &mut memory) });
        assert_eq!(returned == 0, !memory.is_null());
        if let (false, Some(engine)) = (memory.is_null(), self.known(which)) {
            engine.shared.push(memory);
        }
        let other = self.address();
        // SAFETY: any address is safe.
        assert!(code(unsafe { mte_free_shared(handle, other as *mut c_void) }) < 0);
    }

    fn ask_engine(&mut self) {
        let (which, handle) = self.engine();
        let is_one = which < 2;
        let room = usize::from(self.input.byte() % 96);
        let mut text = [0x55 as c_char; 96];
        // SAFETY: plain numbers and texts, for which zero is a value.
        let (mut info, mut stats) = unsafe { (std::mem::zeroed(), [std::mem::zeroed::<nic_load_stat>(); 2]) };
        let (mut count, mut len) = (stats.len(), room);
        // SAFETY: as much room as is said; NULL is checked.
        unsafe {
            for returned in [
                getLocalIpAndPort(handle, text.as_mut_ptr(), room),
                showLinks(handle, text.as_mut_ptr(), room, c_int::from(self.input.byte() & 1)),
            ] {
                assert_eq!(code(returned) == 0, is_one && room > 0);
            }
            assert_eq!(code(mte_local_topology(handle, text.as_mut_ptr(), &mut len)) == 0, is_one);
            assert!(text[room..].iter().all(|byte| *byte == 0x55), "behind the room there is something");
            assert_eq!(code(getNicLoadStats(handle, stats.as_mut_ptr(), &mut count)) == 0, is_one);
            assert_eq!(getRpcPort(handle) > 0, is_one);
            assert!(code(showLinks(handle, std::ptr::null_mut(), 9, 0)) < 0);
            code(mte_last_error_info(&mut info));
            assert!(!CStr::from_ptr(mte_strerror(info.code)).to_bytes().is_empty());
        }
        let (addr, len) = (self.address(), self.input.length());
        let regions = self.known(which).map_or(&[][..], |engine| &engine.regions);
        let expected = len > 0
            && regions.iter().any(|r| addr < r.0.saturating_add(r.1) && r.0 < addr.saturating_add(len));
        // SAFETY: any address is safe.
        let found = unsafe { mte_overlaps(handle, addr as *const c_void, len as usize) };
        assert_eq!(
            found,
            if is_one { c_int::from(expected) } else { -1 },
            "{addr:#x}+{len:#x} of {regions:x?}"
        );
    }

    fn ask_segment(&mut self) {
        let (_, handle, id) = self.segment();
        let room = usize::from(self.input.byte() % 96);
        let mut text = [0x55 as c_char; 96];
        // SAFETY: plain numbers and texts, for which zero is a value.
        let mut buffers = [unsafe { std::mem::zeroed() }; 2];
        let (mut count, mut len) = (buffers.len(), room);
        // SAFETY: as much room as is said; NULL is checked.
        unsafe {
            code(mte_segment_buffers(handle, id, buffers.as_mut_ptr(), &mut count));
            code(mte_segment_descriptor(handle, id, text.as_mut_ptr(), &mut len));
            assert!(text[room..].iter().all(|byte| *byte == 0x55), "behind the room there is something");
            code(checkSegmentStatus(handle, id));
            code(probePeerAliveByID(handle, id));
            assert!(code(mte_segment_buffers(handle, id, buffers.as_mut_ptr(), std::ptr::null_mut())) < 0);
        }
    }
}
