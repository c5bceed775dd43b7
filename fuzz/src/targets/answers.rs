//! What a store or a peer answers, whatever it was asked. The first byte says of which kind it is; the rest is the answer to each
//! connection, after which the server hangs up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use transfer_engine::config::Config;
use transfer_engine::metadata::{self, Own};

/// How long a reading may take, attempts included.
const PATIENCE: Duration = Duration::from_millis(40);
/// Longest that a client waits before the server hangs up on it.
const SILENCE: Duration = Duration::from_millis(10);

/// A descriptor and an address are read, or an error says why not, in time.
pub fn run(bytes: &[u8]) {
    let Some((kind, answer)) = bytes.split_first() else { return };
    // As on an engine's control thread: vectored writes of other crates raise it.
    // SAFETY: a valid signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(serve(listener, answer.to_vec()));
        let (connection, segment) = match kind % 4 {
            0 => (format!("http://{address}/metadata"), "segment"),
            1 => (format!("redis://{address}"), "segment"),
            2 => (format!("etcd://{address}"), "segment"),
            _ => ("P2PHANDSHAKE".to_string(), &*address),
        };
        let mut config = Config { metadata_timeout: PATIENCE, ..Config::default() };
        config.handshake_timeout = Duration::from_secs(1);
        let own = Own { incarnation: String::new(), descriptor: Arc::new(|| Value::Null) };
        let store = metadata::open(&connection, &config, own).unwrap();
        let reads = async {
            let found = store.get(segment).await;
            if let Err(error) = found {
                assert!(!error.text().is_empty());
            }
            if !store.is_peer_to_peer() {
                let _ = store.rpc_address(segment).await;
            }
        };
        let limit = Duration::from_secs(20);
        assert!(tokio::time::timeout(limit, reads).await.is_ok(), "the store is waited for too long");
        drop(store);
        serving.abort();
    });
}

async fn serve(listener: TcpListener, answer: Vec<u8>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let asked = tokio::time::timeout(SILENCE, client.read(&mut request)).await;
            if asked.is_ok_and(|read| read.is_ok()) {
                let _ = client.write_all(&answer).await;
                // What else is asked belongs to the same answer.
                let _ = tokio::time::timeout(SILENCE, client.read(&mut request)).await;
            }
        });
    }
}
