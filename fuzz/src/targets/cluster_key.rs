//! The exchange of proofs of the cluster key, with an end that does not know the key: whatever it sends, it is not believed.

use tokio::io::join;
use transfer_engine::cluster_key::stream::{admit, claim, Admitted};
use transfer_engine::cluster_key::{Keys, Purpose, HELLO};
use transfer_engine::config::{Config, Secret};

/// As a client where the first byte says so, else as a server.
pub fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let purpose = if kind & 4 == 0 { Purpose::Handshake } else { Purpose::Data };
    let mut stream = join(rest, Vec::new());
    runtime.block_on(async {
        match kind % 3 {
            0 => assert!(admit(&keys(true), &mut stream, purpose, None).await.is_err()),
            1 => {
                if let Ok(admitted) = admit(&keys(false), &mut stream, purpose, None).await {
                    let Admitted::Keyless(ahead) = admitted else { panic!("it is taken for a member") };
                    assert!(rest.starts_with(&ahead) && ahead.len() == HELLO.len() && ahead != HELLO);
                    assert!(stream.writer().is_empty(), "a peer without a key is told something");
                }
            }
            _ => {
                assert!(claim(&keys(true), &mut stream, purpose, None).await.is_err());
                assert!(stream.writer().starts_with(&HELLO));
            }
        }
    });
}

fn keys(required: bool) -> Keys {
    let key = Some(Secret("a key that is in no input of this target".into()));
    let config = Config { cluster_key: key, cluster_key_required: Some(required), ..Config::default() };
    Keys::of(&config).unwrap()
}
