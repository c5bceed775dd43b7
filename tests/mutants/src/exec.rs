//! Runs tests of one program, with a limit of time and of memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most private memory of a test and each of its children, in KiB: a mutant may allocate without end.
const MOST_KIB: u32 = 6 << 20;
/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    /// It did not end within the limit and was killed.
    Hung,
}

/// Where tests run, as cargo runs them.
pub struct Place<'a> {
    pub tree: &'a Path,
    pub build: &'a Path,
}

impl Place<'_> {
    /// Runs the named tests of `program` one after another. What they start and leave behind is killed.
    pub fn run(
        &self,
        program: &str,
        tests: &[&str],
        switch: (&str, &str),
        limit: Duration,
    ) -> Result<(End, Duration), String> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {MOST_KIB}; ulimit -c 0; exec \"$0\" \"$@\""), program]);
        command.args(["--exact", "--test-threads=1", "--quiet"]).args(tests);
        command
            .current_dir(self.tree)
            .env("CARGO_MANIFEST_DIR", self.tree)
            .env("CARGO_TARGET_DIR", self.build)
            // What programs in C are linked to.
            .env("TE_LIB", self.build.join("debug/libtransfer_engine.so"));
        command
            .env(switch.0, switch.1)
            // A trace costs seconds, because the programs are large.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let start = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        let end = loop {
            match child.try_wait().map_err(|e| format!("{program}: {e}"))? {
                Some(status) if status.success() => break End::Passed,
                Some(_) => break End::Failed,
                None if start.elapsed() > limit => break End::Hung,
                None => std::thread::sleep(LOOK),
            }
        };
        let took = start.elapsed();
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = child.wait();
        Ok((end, took))
    }
}

/// Does `work` in so many threads, which are told which of them they are.
pub fn at_once(jobs: usize, work: impl Fn(usize) -> Result<(), String> + Sync) -> Result<(), String> {
    let work = &work;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|worker| scope.spawn(move || work(worker))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker panicked".to_string())?)
    })
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
