//! The exchange of proofs over a stream, for connections that the control plane reads and writes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Distrust, Keys, Purpose, CHALLENGE_LEN, HELLO, HELLO_LEN, PROOF_LEN, UNKNOWN, WORD_LEN};

/// Why a connection is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The other end is not believed.
    #[error("{0}")]
    Distrusted(#[from] Distrust),
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The client's side, on a connection that nothing was sent on. Returns what has to be sent before the first request. The
/// caller sets a limit.
pub async fn claim<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &Keys,
    stream: &mut S,
    purpose: Purpose,
) -> Result<[u8; PROOF_LEN], Refused> {
    let claim = keys.claim(purpose)?;
    stream.write_all(claim.hello()).await?;
    let mut challenge = [0; CHALLENGE_LEN];
    let (word, rest) = challenge.split_at_mut(WORD_LEN);
    if let Err(error) = stream.read_exact(word).await {
        // An engine without a key, and upstream's, hang up on what is no request to them.
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Err(Distrust::Stranger.into()),
            _ => Err(error.into()),
        };
    }
    match word {
        word if *word == UNKNOWN => return Err(Distrust::OtherKey.into()),
        // A data port without a key refuses what it takes for a READ.
        word if word[..] != super::CHALLENGE => return Err(Distrust::Stranger.into()),
        _ => {}
    }
    match stream.read_exact(rest).await {
        Ok(_) => Ok(claim.answer(&challenge)?),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Distrust::Unproven.into()),
        Err(error) => Err(error.into()),
    }
}

/// The server's side, on a connection that nothing was read from. Returns bytes that belong to the first request, from a peer
/// that has no key and needs none. The caller sets a limit.
pub async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &Keys,
    stream: &mut S,
    purpose: Purpose,
) -> Result<Vec<u8>, Refused> {
    let mut hello = [0; HELLO_LEN];
    let mut got = 0;
    while got < WORD_LEN {
        match stream.read(&mut hello[got..WORD_LEN]).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => got += n,
        }
    }
    if hello[..WORD_LEN] != HELLO {
        return match keys.required {
            true => Err(Distrust::Stranger.into()),
            false => Ok(hello[..WORD_LEN].to_vec()),
        };
    }
    stream.read_exact(&mut hello[WORD_LEN..]).await?;
    let (visitor, challenge) = match keys.challenge(purpose, &hello) {
        Ok(challenged) => challenged,
        Err(why) => {
            stream.write_all(&UNKNOWN).await?;
            return Err(why.into());
        }
    };
    stream.write_all(&challenge).await?;
    let mut proof = [0; PROOF_LEN];
    stream.read_exact(&mut proof).await?;
    match visitor.proves(&proof) {
        true => Ok(Vec::new()),
        false => Err(Distrust::Unproven.into()),
    }
}
