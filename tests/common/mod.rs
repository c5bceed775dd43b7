//! What several test binaries share.

use std::process::Command;

/// Runs the test called `name` in a process of its own with more environment; `false` in that process.
pub fn in_child(name: &str, environment: &[(&str, &str)]) -> bool {
    const MARK: &str = "TRANSFER_ENGINE_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return false;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = output.status.success() && text.contains("1 passed");
    assert!(
        ran,
        "{name} with {environment:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    true
}
