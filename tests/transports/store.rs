//! A metadata store for engines that keep their name when they come back.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running `mte metadata-server`, killed when it is dropped.
pub struct Store {
    server: Child,
    /// What engines are given.
    pub url: String,
}

impl Store {
    pub fn start() -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_mte"))
            .args(["metadata-server", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("LISTENING ").expect("it tells its address");
        Store { url: format!("http://{address}/metadata"), server }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
