//! The exchange of proofs over a stream, for connections that the control plane reads and writes.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Distrust, Keys, Label, Purpose, Session, CHALLENGE, CHALLENGE_LEN, HELLO, HELLO_LEN, PROOF_LEN, UNKNOWN,
    WORD_LEN,
};

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

/// Who is at the other end.
pub enum Admitted {
    /// Somebody without a key where none is required; these bytes belong to the request.
    Keyless(Vec<u8>),
    /// Somebody who knows the key.
    Member(Box<Session>),
}

/// The client's side, on a connection to `dialled` that nothing was sent on. Returns what has to be sent before the first
/// request. The caller sets a limit.
pub async fn claim<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &Keys,
    stream: &mut S,
    purpose: Purpose,
    dialled: Option<SocketAddr>,
) -> Result<([u8; PROOF_LEN], Session), Refused> {
    let claim = keys.claim(purpose, dialled)?;
    stream.write_all(claim.hello()).await?;
    let mut challenge = [0; CHALLENGE_LEN];
    let (word, rest) = challenge.split_at_mut(WORD_LEN);
    if let Err(error) = stream.read_exact(word).await {
        // An engine without a key, and upstream's, hang up on what is no request to them.
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                Err(Distrust::HungUp(error.raw_os_error()).into())
            }
            _ => Err(error.into()),
        };
    }
    match word {
        word if *word == UNKNOWN => return Err(Distrust::OtherKey.into()),
        // A data port without a key refuses what it takes for a READ.
        word if *word != CHALLENGE => return Err(Distrust::Stranger.into()),
        _ => {}
    }
    match stream.read_exact(rest).await {
        Ok(_) => Ok(claim.answer(&challenge)?),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Distrust::Unproven.into()),
        Err(error) => Err(error.into()),
    }
}

/// The server's side, on a connection that nothing was read from. The caller sets a limit, and waits for the client to hang
/// up after [`Distrust::OtherKey`], which it is told.
pub async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    keys: &Keys,
    stream: &mut S,
    purpose: Purpose,
    here: Option<SocketAddr>,
) -> Result<Admitted, Refused> {
    let mut hello = [0; HELLO_LEN];
    stream.read_exact(&mut hello[..WORD_LEN]).await?;
    if hello[..WORD_LEN] != HELLO {
        return match keys.required {
            true => Err(Distrust::Stranger.into()),
            false => Ok(Admitted::Keyless(hello[..WORD_LEN].to_vec())),
        };
    }
    stream.read_exact(&mut hello[WORD_LEN..]).await?;
    let (session, challenge) = match keys.challenge(purpose, here, &hello) {
        Ok(challenged) => challenged,
        Err(why) => {
            stream.write_all(&UNKNOWN).await?;
            return Err(why.into());
        }
    };
    stream.write_all(&challenge).await?;
    let mut proof = [0; PROOF_LEN];
    stream.read_exact(&mut proof).await?;
    match session.admits(&proof) {
        true => Ok(Admitted::Member(session.into())),
        false => Err(Distrust::Unproven.into()),
    }
}

/// Reads the tag of `pieces`, which came before it. The caller sets a limit.
pub async fn check<S: AsyncRead + Unpin>(
    session: &Session,
    stream: &mut S,
    label: Label,
    pieces: &[&[u8]],
) -> Result<(), Refused> {
    let mut tag = [0; PROOF_LEN];
    stream.read_exact(&mut tag).await?;
    match session.is_tag(label, pieces, &tag) {
        true => Ok(()),
        false => Err(Distrust::Unproven.into()),
    }
}
