//! A Rust static library that has nothing to do with ours, but for the run-time of the same language.

/// How many of `times` panics were caught.
#[no_mangle]
pub extern "C" fn caught_panics(times: i32) -> i32 {
    let caught = |n| std::panic::catch_unwind(move || assert!(n < 0, "number {n}")).is_err();
    std::thread::spawn(move || (0..times).filter(|&n| caught(n)).count() as i32).join().unwrap_or(-1)
}
