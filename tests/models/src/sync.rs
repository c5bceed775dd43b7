//! What stands in for `runtime::sync` in a model: loom's atomics and locks, which show a thread every value that the memory model
//! allows it to see, in every order that the threads can take turns in.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

pub use loom::thread::yield_now;

/// Atomics. loom takes SeqCst for AcqRel, so a fence stands on both sides of each such access: what remains of the difference is
/// that accesses of other kinds are ordered by them too, which the language does not promise.
pub mod atomic {
    pub use loom::sync::atomic::{fence, Ordering};

    /// The access, between fences if it is sequentially consistent.
    fn fenced<T>(order: Ordering, access: impl FnOnce() -> T) -> T {
        let fence_if = |order| {
            if matches!(order, Ordering::SeqCst) {
                fence(Ordering::SeqCst);
            }
        };
        fence_if(order);
        let value = access();
        fence_if(order);
        value
    }

    macro_rules! atomic {
        ($name:ident, $number:ty $(, $change:ident)*) => {
            /// As the type of this name in the standard library.
            #[derive(Debug)]
            pub struct $name(loom::sync::atomic::$name);

            impl $name {
                pub fn new(value: $number) -> Self {
                    $name(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $number {
                    fenced(order, || self.0.load(order))
                }

                pub fn store(&self, value: $number, order: Ordering) {
                    fenced(order, || self.0.store(value, order));
                }

                pub fn swap(&self, value: $number, order: Ordering) -> $number {
                    fenced(order, || self.0.swap(value, order))
                }

                pub fn compare_exchange_weak(
                    &self,
                    old: $number,
                    new: $number,
                    order: Ordering,
                    otherwise: Ordering,
                ) -> Result<$number, $number> {
                    fenced(order, || self.0.compare_exchange(old, new, order, otherwise))
                }

                $(pub fn $change(&self, value: $number, order: Ordering) -> $number {
                    fenced(order, || self.0.$change(value, order))
                })*
            }

            impl Default for $name {
                fn default() -> Self {
                    $name::new(<$number>::default())
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicU8, u8);
    atomic!(AtomicU16, u16);
    atomic!(AtomicI32, i32);
    atomic!(AtomicU32, u32, fetch_add, fetch_sub);
    atomic!(AtomicU64, u64, fetch_add, fetch_sub);
    atomic!(AtomicI64, i64, fetch_add, fetch_sub);
    atomic!(AtomicUsize, usize, fetch_add, fetch_sub);
}

/// As parking_lot's.
#[derive(Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

/// While it lives the mutex is locked.
pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock().ok())
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

/// As parking_lot's; but no time passes in a model, so a wait that nobody ends is reported as a deadlock.
#[derive(Default)]
pub struct Condvar {
    inner: loom::sync::Condvar,
    /// Looked at before a thread falls asleep, so that others can come between what it saw and that.
    before: atomic::AtomicBool,
}

/// Whether a wait ended at its deadline: never.
pub struct Waited;

impl Waited {
    pub fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.before.load(atomic::Ordering::Relaxed);
        guard.0 = guard.0.take().and_then(|guard| self.inner.wait(guard).ok());
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> Waited {
        self.wait(guard);
        Waited
    }

    pub fn notify_all(&self) {
        self.inner.notify_all();
    }
}

/// As parking_lot's.
#[derive(Default)]
pub struct RwLock<T>(loom::sync::RwLock<T>);

pub type RwLockReadGuard<'a, T> = loom::sync::RwLockReadGuard<'a, T>;

impl<T> RwLock<T> {
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap()
    }

    pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap()
    }
}

/// As the standard library's. Whether it is set is for the model to say: a thread may see that late.
pub struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: atomic::AtomicBool,
    setting: Mutex<()>,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        OnceLock { value: value.into(), is_set: atomic::AtomicBool::new(true), setting: Mutex::new(()) }
    }
}

impl<T> OnceLock<T> {
    pub fn new() -> Self {
        OnceLock { value: std::sync::OnceLock::new(), is_set: Default::default(), setting: Mutex::new(()) }
    }

    pub fn get(&self) -> Option<&T> {
        self.is_set.load(atomic::Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub fn set(&self, value: T) -> Result<(), T> {
        let _turn = self.setting.lock();
        self.value.set(value)?;
        self.is_set.store(true, atomic::Ordering::Release);
        Ok(())
    }

    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _others_was_first = self.set(make());
        }
        self.value.get().unwrap()
    }
}
