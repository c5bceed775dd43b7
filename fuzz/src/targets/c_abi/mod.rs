//! The C functions as a sequence of calls over two engines of this process, with arguments that are right, wrong, NULL and of
//! things that are gone. A model says what has to come of them: codes of `error.h` and nothing else, each task terminal in time
//! and for good, the right bytes where it is COMPLETED, and no byte elsewhere.

mod arena;
mod calls;
mod tasks;
mod transfers;
mod world;

use std::cell::RefCell;
use std::ffi::{c_char, c_void, CStr};

use transfer_engine::ffi::batch::{mte_cancel_batch, mte_task_drained, MTE_DRAINED_YES};
use transfer_engine::ffi::ext::{mte_last_error, mte_wait_batch};
use transfer_engine::ffi::memory::unregisterLocalMemory;
use transfer_engine::ffi::segment::closeSegment;
use transfer_engine::ffi::shared::mte_free_shared;
use transfer_engine::ffi::transfer::freeBatchID;

use self::tasks::Tasks;
use self::world::{code, World};
use super::input::Input;

/// Calls of one input.
const MOST_CALLS: usize = 64;
/// How long tasks may take to end, in milliseconds: far longer than they take on one machine.
const END_LIMIT_MS: i64 = 60_000;
/// How often a peer is asked whether bytes of a failed WRITE may still come, a millisecond apart.
const DRAIN_LOOKS: usize = 1000;

/// A batch of the input.
struct Batch {
    engine: usize,
    handle: *mut c_void,
    id: u64,
    room: u64,
    /// Numbers of its tasks.
    tasks: Vec<usize>,
}

/// One input.
struct Play<'a> {
    world: &'a mut World,
    input: Input<'a>,
    batches: Vec<Batch>,
    /// Ids of batches that were freed, or went with their engine.
    freed: Vec<u64>,
    tasks: Tasks,
    /// A transfer in one call failed: bytes of it may still come, and nobody can ask.
    has_unknown_trails: bool,
}

/// Makes the calls, then ends what they began, and looks at the memory.
pub fn run(bytes: &[u8]) {
    thread_local!(static WORLD: RefCell<World> = RefCell::new(World::new()));
    WORLD.with_borrow_mut(|world| {
        (0..2).for_each(|which| world.create(which));
        let input = Input(bytes);
        let (batches, freed, tasks) = (Vec::new(), Vec::new(), Tasks::default());
        let mut play = Play { world, input, batches, freed, tasks, has_unknown_trails: false };
        for _ in 0..MOST_CALLS {
            if play.input.is_empty() {
                break;
            }
            play.call();
        }
        play.end();
    });
}

impl Play<'_> {
    /// An engine's number and a handle: mostly right, else NULL, of an engine that is gone, or of none.
    fn engine(&mut self) -> (usize, *mut c_void) {
        let choice = self.input.byte();
        let which = usize::from(choice & 1);
        let wild = match choice {
            0xf0..=0xf3 => std::ptr::null_mut(),
            0xf4..=0xf7 => usize::from(choice).wrapping_mul(0x0101_0101_0101) as *mut c_void,
            0xf8.. => self.world.gone.last().copied().unwrap_or_default(),
            _ => match &self.world.engines[which] {
                Some(engine) => return (which, engine.handle),
                None => self.world.gone.last().copied().unwrap_or_default(),
            },
        };
        (usize::MAX, wild)
    }

    /// The engine is gone: its batches are too, and their tasks have ended somehow.
    fn destroyed(&mut self, which: usize) {
        let (gone, kept) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| batch.engine == which);
        self.batches = kept;
        let gone: Vec<Batch> = gone;
        for batch in gone {
            for number in batch.tasks {
                self.tasks.lose(number);
            }
            self.freed.push(batch.id);
        }
        // Its requests at other engines may not have been read yet.
        self.has_unknown_trails = true;
    }

    fn end(&mut self) {
        for index in 0..self.batches.len() {
            let Batch { handle, id, .. } = self.batches[index];
            // SAFETY: any batch is safe.
            unsafe {
                code(mte_cancel_batch(handle, id));
                assert_eq!(mte_wait_batch(handle, id, END_LIMIT_MS), 0, "tasks do not end: {}", last_error());
            }
            (0..self.batches[index].tasks.len()).for_each(|task| self.look(index, task));
        }
        let is_quiet = !self.has_unknown_trails && (!self.tasks.has_trails() || self.is_drained());
        for batch in std::mem::take(&mut self.batches) {
            // SAFETY: any batch is safe.
            assert_eq!(unsafe { freeBatchID(batch.handle, batch.id) }, 0, "{}", last_error());
        }
        for which in 0..2 {
            match is_quiet {
                true => self.tidy(which),
                false => self.world.destroy(which),
            }
        }
        self.world.arena.check_all();
        self.world.arena.restore();
    }

    /// Every failed WRITE is known to be over at the peer, within a second.
    fn is_drained(&self) -> bool {
        let is_over = |batch: &Batch, task: usize| {
            let mut drained = -1;
            // SAFETY: a valid pointer.
            code(unsafe { mte_task_drained(batch.handle, batch.id, task, &mut drained) });
            drained == MTE_DRAINED_YES
        };
        let are_over =
            || self.batches.iter().all(|batch| (0..batch.tasks.len()).all(|task| is_over(batch, task)));
        (0..DRAIN_LOOKS).any(|_| {
            let over = are_over();
            if !over {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            over
        })
    }

    /// Gives back what the input has left with an engine.
    fn tidy(&mut self, which: usize) {
        let Some(engine) = &mut self.world.engines[which] else { return };
        for (addr, _) in engine.regions.drain(..) {
            // SAFETY: any address is safe.
            let returned = unsafe { unregisterLocalMemory(engine.handle, addr as *mut c_void) };
            assert_eq!(returned, 0, "{}", last_error());
        }
        for id in engine.segments.drain(..) {
            // SAFETY: any id is safe.
            code(unsafe { closeSegment(engine.handle, id) });
        }
        for memory in engine.shared.drain(..) {
            // SAFETY: memory of that function's counterpart, which nobody uses any more.
            code(unsafe { mte_free_shared(engine.handle, memory) });
        }
    }
}

/// The text of this thread's last failure.
fn last_error() -> String {
    let mut text = [0 as c_char; 512];
    // SAFETY: room for that many bytes.
    unsafe { mte_last_error(text.as_mut_ptr(), text.len()) };
    // SAFETY: the call has written a C string.
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned()
}
