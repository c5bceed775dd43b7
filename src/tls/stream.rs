//! Connections that the control plane reads and writes, with TLS and without.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{is_hello, Distrust, Port, Tls, HELLO_LEN};
use crate::runtime::sockets::Stream;
use crate::runtime::tracked::Tracked;

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

/// A connection, some of whose bytes were read already.
pub struct Carrier {
    ahead: Vec<u8>,
    stream: Stream,
}

/// A connection to a peer.
pub enum Line {
    /// Without TLS.
    Plain(Carrier),
    /// With it, and the peer's certificate is believed.
    Secure(Box<TlsStream<Carrier>>),
}

impl Line {
    /// One without TLS.
    pub fn plain(stream: Tracked<TcpStream>) -> Self {
        Line::Plain(Carrier { ahead: Vec::new(), stream: Stream(stream) })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        let carrier = match self {
            Line::Plain(carrier) => carrier,
            Line::Secure(stream) => stream.get_ref().0,
        };
        &carrier.stream.0
    }

    /// The socket, and what rustls keeps of the connection if there is TLS. Only for an end that has read all bytes that it
    /// looked ahead at, as a client has.
    pub fn into_parts(self) -> (Tracked<TcpStream>, Option<Connection>) {
        match self {
            Line::Plain(carrier) => (carrier.stream.0, None),
            Line::Secure(stream) => match *stream {
                TlsStream::Client(stream) => {
                    let (carrier, connection) = stream.into_inner();
                    (carrier.stream.0, Some(connection.into()))
                }
                TlsStream::Server(stream) => {
                    let (carrier, connection) = stream.into_inner();
                    (carrier.stream.0, Some(connection.into()))
                }
            },
        }
    }
}

/// The client's side, on a connection to `host` that nothing was sent on. The caller sets a limit. The server may refuse this end's
/// certificate a moment later, which the first read tells; see [`Distrust::of`].
pub async fn claim(tls: &Tls, port: Port, host: &str, stream: Tracked<TcpStream>) -> Result<Line, Refused> {
    // The last message of TLS is followed by a request at once, which would else wait for the acknowledgement of the former.
    let _ = stream.set_nodelay(true);
    let connector = TlsConnector::from(tls.pair(port)?.client.clone());
    let carrier = Carrier { ahead: Vec::new(), stream: Stream(stream) };
    match connector.connect(tls.name(host)?, carrier).await {
        Ok(stream) => Ok(Line::Secure(Box::new(TlsStream::Client(stream)))),
        Err(error) => Err(Distrust::of_beginning(&error).map_or(Refused::Io(error), Refused::Distrusted)),
    }
}

/// The server's side, on a connection that nothing was read from. The caller sets a limit. A refused client may have to be told so, so
/// its connection is returned too.
pub async fn admit(
    tls: &Tls,
    port: Port,
    stream: Tracked<TcpStream>,
) -> Result<Line, (Refused, Tracked<TcpStream>)> {
    let mut carrier = Carrier { ahead: Vec::new(), stream: Stream(stream) };
    let mut ahead = Vec::with_capacity(HELLO_LEN);
    let begins = loop {
        if let Some(begins) = is_hello(&ahead) {
            break begins;
        }
        match (&mut carrier).take((HELLO_LEN - ahead.len()) as u64).read_buf(&mut ahead).await {
            Ok(0) => return Err((io::Error::from(io::ErrorKind::UnexpectedEof).into(), carrier.stream.0)),
            Ok(_) => {}
            Err(error) => return Err((error.into(), carrier.stream.0)),
        }
    };
    carrier.ahead = ahead;
    let config = match (begins, tls.required, tls.pair(port)) {
        (true, _, Ok(pair)) => pair.server.clone(),
        (false, false, _) => return Ok(Line::Plain(carrier)),
        (false, true, _) => return Err((Distrust::Plain.into(), carrier.stream.0)),
        (true, _, Err(why)) => return Err((why.into(), carrier.stream.0)),
    };
    match TlsAcceptor::from(config).accept(carrier).into_fallible().await {
        Ok(stream) => Ok(Line::Secure(Box::new(TlsStream::Server(stream)))),
        Err((error, carrier)) => {
            let why = Distrust::of(&error).map_or(Refused::Io(error), Refused::Distrusted);
            Err((why, carrier.stream.0))
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.ahead.len().min(buffer.remaining());
        if count > 0 {
            buffer.put_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(carrier) => Pin::new(carrier).poll_read(context, buffer),
            Line::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    /// With TLS, what was written is out only after a flush; this one flushes what it can at once.
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Line::Plain(carrier) => Pin::new(carrier).poll_write(context, bytes),
            Line::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(carrier) => Pin::new(carrier).poll_flush(context),
            Line::Secure(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Line::Plain(carrier) => Pin::new(carrier).poll_shutdown(context),
            Line::Secure(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
