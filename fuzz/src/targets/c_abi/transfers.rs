//! Calls about batches and transfers.

use std::ffi::{c_int, c_void};

use transfer_engine::ffi::arrays::{mte_submit_arrays, mte_transfer_arrays};
use transfer_engine::ffi::batch::{
    getBatchTransferStatus, mte_batch_status, mte_cancel_batch, mte_task_drained,
};
use transfer_engine::ffi::ext::{mte_batch_fd, mte_batch_notification, mte_task_error, mte_wait_batch};
use transfer_engine::ffi::pages::{mte_submit_pages, mte_transfer_pages};
use transfer_engine::ffi::report::mte_task_report;
use transfer_engine::ffi::transfer::{
    allocateBatchID, freeBatchID, getTransferStatus, submitTransfer, submitTransferWithNotify,
};
use transfer_engine::ffi::types::{
    notify_msg, transfer_request, transfer_status, INVALID_BATCH, OPCODE_WRITE, STATUS_COMPLETED,
    STATUS_FAILED, STATUS_WAITING,
};

use super::tasks::State;
use super::world::code;
use super::{last_error, Batch, Play};

/// What no call writes by itself.
const UNTOUCHED: c_int = -12345;

impl Play<'_> {
    /// A batch's place among those of the input, or none; and an engine and an id to call with.
    fn batch(&mut self) -> (Option<usize>, *mut c_void, u64) {
        let choice = self.input.byte();
        let known = usize::from(choice) % self.batches.len().max(1);
        match choice {
            0xf8.. => {
                (None, self.engine().1, self.input.pick(&[0, 1, INVALID_BATCH, u64::MAX >> 1, 1 << 48]))
            }
            0xf0.. => (None, self.engine().1, self.freed.last().copied().unwrap_or(INVALID_BATCH)),
            _ => match self.batches.get(known) {
                Some(batch) => (Some(known), batch.handle, batch.id),
                None => (None, self.engine().1, INVALID_BATCH),
            },
        }
    }

    pub fn allocate(&mut self) {
        let (engine, handle) = self.engine();
        let room = self.input.length();
        // SAFETY: any handle is safe.
        let id = unsafe { allocateBatchID(handle, room as usize) };
        if id == INVALID_BATCH {
            return;
        }
        assert!(engine < 2, "an engine that is none has a batch");
        assert!(
            !self.freed.contains(&id) && self.batches.iter().all(|batch| batch.id != id),
            "an id was issued twice"
        );
        self.batches.push(Batch { engine, handle, id, room, tasks: Vec::new() });
    }

    /// One request: local address, remote address, bytes.
    fn request(&mut self) -> (u64, u64, u64) {
        let [local, remote] = [self.address(), self.address()];
        (local, remote, self.input.length())
    }

    /// The id of a segment: mostly one that is open.
    fn target(&mut self, which: usize) -> i32 {
        let choice = self.input.byte();
        let open =
            self.world.engines.get(which).and_then(Option::as_ref).map_or(&[][..], |engine| &engine.segments);
        match choice {
            0xfc.. => self.input.pick(&[-1, i32::MAX, i32::MIN, 77]),
            0xe0.. => 0,
            _ if open.is_empty() => 0,
            _ => open[usize::from(choice) % open.len()],
        }
    }

    fn opcode(&mut self) -> c_int {
        match self.input.byte() {
            0xfc.. => self.input.pick(&[2, -1, c_int::MAX]),
            other => c_int::from(other & 1),
        }
    }

    /// Notes requests that are about to be submitted with `place`; gives the number of the first.
    fn note(&mut self, requests: &[(u64, u64, u64)], opcode: c_int) {
        for (local, remote, len) in requests {
            self.tasks.add(&mut self.world.arena, *local, *remote, *len, opcode == OPCODE_WRITE);
        }
    }

    /// What became of a submit call whose requests were noted from number `first` on.
    fn submitted(&mut self, place: Option<usize>, first: usize, returned: c_int) {
        if code(returned) != 0 {
            return self.tasks.take_back(&mut self.world.arena, first);
        }
        let batch = &mut self.batches[place.expect("a batch that is none has taken requests")];
        batch.tasks.extend(first..self.tasks.0.len());
        assert!(batch.tasks.len() as u64 <= batch.room, "{} of {}", batch.tasks.len(), batch.room);
    }

    pub fn submit(&mut self, notifies: bool) {
        let (place, handle, id) = self.batch();
        let count = usize::from(self.input.byte() % 6);
        let which = place.map_or(0, |place| self.batches[place].engine);
        let first = self.tasks.0.len();
        let mut entries = Vec::new();
        for _ in 0..count {
            let (opcode, target_id, (local, remote, length)) =
                (self.opcode(), self.target(which), self.request());
            self.note(&[(local, remote, length)], opcode);
            entries.push(transfer_request {
                opcode,
                source: local as *mut c_void,
                target_id,
                target_offset: remote,
                length,
            });
        }
        let list = if self.input.byte() < 0xf8 { entries.as_mut_ptr() } else { std::ptr::null_mut() };
        let mut texts = [*b"name\0", *b"\xff\xfe\xfd\xfc\0"];
        let [good, bad] = texts.each_mut().map(|text| text.as_mut_ptr().cast());
        let text = self.input.pick(&[good, good, good, bad, std::ptr::null_mut()]);
        // SAFETY: `count` entries, and C strings.
        let returned = unsafe {
            match notifies {
                true => {
                    submitTransferWithNotify(handle, id, list, count, notify_msg { name: good, msg: text })
                }
                false => submitTransfer(handle, id, list, count),
            }
        };
        self.submitted(place, first, returned);
    }

    /// Requests of one target, as arrays; in one call, or with a batch.
    pub fn arrays(&mut self, at_once: bool) {
        let (place, handle, id) = self.batch();
        let which = place.map_or(0, |place| self.batches[place].engine);
        let (opcode, target) = (self.opcode(), self.target(which));
        let count = usize::from(self.input.byte() % 6);
        let requests: Vec<_> = (0..count).map(|_| self.request()).collect();
        let [locals, remotes, lens]: [Vec<u64>; 3] =
            [|r: &(u64, u64, u64)| r.0, |r: &(u64, u64, u64)| r.1, |r: &(u64, u64, u64)| r.2]
                .map(|part| requests.iter().map(part).collect());
        let nic = self.input.pick(&[std::ptr::null(), std::ptr::null(), c"".as_ptr(), c"nic".as_ptr()]);
        let first = self.tasks.0.len();
        self.note(&requests, opcode);
        let (locals, remotes, lens) = (locals.as_ptr(), remotes.as_ptr(), lens.as_ptr());
        // SAFETY: `count` numbers each, and a C string.
        let returned = unsafe {
            match at_once {
                false => mte_submit_arrays(
                    handle,
                    id,
                    target,
                    opcode,
                    locals,
                    remotes,
                    lens,
                    count,
                    nic,
                    std::ptr::null(),
                ),
                true => {
                    let limit = self.input.pick(&[-1, -1, -1, 0, 1, 50]);
                    let info = std::ptr::null_mut();
                    mte_transfer_arrays(
                        handle, target, opcode, locals, remotes, lens, count, nic, limit, info,
                    )
                }
            }
        };
        match at_once {
            true => self.ended(first, returned),
            false => self.submitted(place, first, returned),
        }
    }

    /// A grid of two fields and up to three pages; in one call, or with a batch.
    pub fn pages(&mut self, at_once: bool) {
        let (place, handle, id) = self.batch();
        let which = place.map_or(0, |place| self.batches[place].engine);
        let (opcode, target) = (self.opcode(), self.target(which));
        let count = usize::from(self.input.byte() % 4);
        let stride = i64::from(self.input.short());
        let len = self.input.length() as i64;
        let mut grid = [(); 2].map(|()| [self.address() as i64, stride, self.address() as i64, stride, len]);
        if self.input.byte() > 0xf0 {
            grid[1][usize::from(self.input.byte()) % 5] = self.input.pick(&[i64::MIN, i64::MAX, -1]);
        }
        let list: Vec<i64> = (0..count).map(|_| i64::from(self.input.byte() as i8)).collect();
        let first = self.tasks.0.len();
        for [from, from_stride, to, to_stride, len] in grid {
            for page in &list {
                let local = from.wrapping_add(page.wrapping_mul(from_stride)) as u64;
                let remote = to.wrapping_add(page.wrapping_mul(to_stride)) as u64;
                // Local memory need not be registered, so an address elsewhere would be someone's.
                if !self.world.arena.holds(local, len as u64) {
                    return self.tasks.take_back(&mut self.world.arena, first);
                }
                self.note(&[(local, remote, len as u64)], opcode);
            }
        }
        let (pages, fields) = (list.as_ptr(), grid.as_ptr().cast());
        // SAFETY: as many numbers as the counts say.
        let returned = unsafe {
            match at_once {
                false => mte_submit_pages(
                    handle,
                    id,
                    target,
                    opcode,
                    pages,
                    pages,
                    count,
                    fields,
                    2,
                    std::ptr::null(),
                ),
                true => {
                    let (most, limit) = (self.input.pick(&[0, 1, 4]), self.input.pick(&[-1, -1, 0, 50]));
                    let (nic, info) = (std::ptr::null(), std::ptr::null_mut());
                    mte_transfer_pages(
                        handle, target, opcode, pages, pages, count, fields, 2, most, nic, limit, info,
                    )
                }
            }
        };
        match at_once {
            true => self.ended(first, returned),
            false => self.submitted(place, first, returned),
        }
    }

    /// A transfer in one call has ended.
    fn ended(&mut self, first: usize, returned: c_int) {
        let is_over = code(returned) == 0;
        for number in first..self.tasks.0.len() {
            match is_over {
                true => self.tasks.note(&mut self.world.arena, number, State::Completed),
                false => self.tasks.lose(number),
            }
        }
        self.has_unknown_trails |= !is_over && first < self.tasks.0.len();
    }

    pub fn status(&mut self) {
        let (place, handle, id) = self.batch();
        let task = usize::from(self.input.byte() % 8);
        if let Some(place) = place.filter(|place| task < self.batches[*place].tasks.len()) {
            return self.look(place, task);
        }
        let mut status = transfer_status { status: UNTOUCHED, transferred_bytes: 7 };
        // SAFETY: a valid pointer, or NULL.
        let returned = unsafe { getTransferStatus(handle, id, task, &mut status) };
        assert!(code(returned) < 0 && (status.status, status.transferred_bytes) == (UNTOUCHED, 7));
        // SAFETY: NULL is safe.
        assert!(code(unsafe { getTransferStatus(handle, id, task, std::ptr::null_mut()) }) < 0);
    }

    /// Asks for a task that is there.
    pub fn look(&mut self, place: usize, task: usize) {
        let Batch { handle, id, ref tasks, .. } = self.batches[place];
        let number = tasks[task];
        let mut status = transfer_status { status: UNTOUCHED, transferred_bytes: 0 };
        // SAFETY: a valid pointer.
        let returned = unsafe { getTransferStatus(handle, id, task, &mut status) };
        assert_eq!(returned, 0, "{}", last_error());
        let len = self.tasks.0[number].to.1;
        assert!(status.transferred_bytes <= len, "{} of {len} bytes", status.transferred_bytes);
        match status.status {
            STATUS_WAITING => assert_eq!(self.tasks.0[number].state, State::Running),
            STATUS_COMPLETED => {
                assert_eq!(status.transferred_bytes, len);
                self.tasks.note(&mut self.world.arena, number, State::Completed);
            }
            STATUS_FAILED => self.tasks.note(&mut self.world.arena, number, State::Failed),
            other => panic!("status {other}"),
        }
    }

    pub fn free(&mut self) {
        let (place, handle, id) = self.batch();
        if let Some(place) = place {
            (0..self.batches[place].tasks.len()).for_each(|task| self.look(place, task));
        }
        // SAFETY: any batch is safe.
        let returned = code(unsafe { freeBatchID(handle, id) });
        let Some(place) = place else { return assert!(returned < 0, "a batch that is none was freed") };
        let has_ended = self.batches[place].tasks.iter().all(|n| self.tasks.0[*n].state != State::Running);
        match returned {
            0 => {
                let batch = self.batches.remove(place);
                // A task may have ended since it was looked at; how, nobody can ask any more.
                let unseen = batch.tasks.iter().copied().filter(|n| self.tasks.0[*n].state == State::Running);
                let unseen: Vec<_> = unseen.collect();
                // Whether bytes of one that failed still come cannot be asked any more either.
                self.has_unknown_trails |= self.tasks.has_trails() || !unseen.is_empty();
                unseen.into_iter().for_each(|number| self.tasks.lose(number));
                self.freed.push(id);
            }
            other => assert!(other == -4 && !has_ended, "{}", last_error()),
        }
    }

    pub fn wait(&mut self) {
        let (place, handle, id) = self.batch();
        let limit = self.input.pick(&[0, 1, 5, super::END_LIMIT_MS]);
        // SAFETY: any batch is safe.
        let returned = code(unsafe { mte_wait_batch(handle, id, limit) });
        match place {
            None => assert!(returned < 0),
            Some(place) if returned == 0 => {
                (0..self.batches[place].tasks.len()).for_each(|task| self.look(place, task));
                let has_ended =
                    self.batches[place].tasks.iter().all(|n| self.tasks.0[*n].state != State::Running);
                assert!(has_ended, "a task runs after its batch was waited for");
            }
            Some(_) => assert!(returned == -4 && limit < super::END_LIMIT_MS, "{}", last_error()),
        }
    }

    pub fn cancel(&mut self) {
        let (place, handle, id) = self.batch();
        // SAFETY: any batch is safe.
        assert_eq!(code(unsafe { mte_cancel_batch(handle, id) }) == 0, place.is_some());
    }

    /// What else is told of batches and tasks.
    pub fn ask(&mut self) {
        let (place, handle, id) = self.batch();
        let task = usize::from(self.input.byte() % 8);
        let tasks = place.map_or(0, |place| self.batches[place].tasks.len());
        // SAFETY: plain numbers and texts, for which zero is a value.
        let (mut report, mut info, mut summary) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        let (mut number, mut all) =
            (UNTOUCHED, [transfer_status { status: UNTOUCHED, transferred_bytes: 0 }; 4]);
        let status = &mut all[0];
        // SAFETY: valid pointers, and NULL, which is checked.
        unsafe {
            for returned in [
                mte_task_report(handle, id, task, &mut report),
                mte_task_error(handle, id, task, &mut info),
                mte_task_drained(handle, id, task, &mut number),
            ] {
                assert_eq!(code(returned) == 0, task < tasks, "{}", last_error());
            }
            for returned in [
                getBatchTransferStatus(handle, id, status),
                mte_batch_status(handle, id, &mut summary, all.as_mut_ptr(), all.len()),
                mte_batch_notification(handle, id, &mut number, &mut info),
                mte_batch_fd(handle, id, &mut number),
            ] {
                assert_eq!(code(returned) == 0, place.is_some(), "{}", last_error());
            }
            let null = std::ptr::null_mut();
            assert!(
                code(mte_task_drained(handle, id, task, null)) < 0
                    && code(mte_batch_fd(handle, id, null)) < 0
            );
            assert!(code(mte_batch_status(handle, id, &mut summary, std::ptr::null_mut(), 1)) < 0);
        }
        assert!(place.is_none() || summary.tasks == tasks && summary.completed + summary.failed <= tasks);
    }
}
