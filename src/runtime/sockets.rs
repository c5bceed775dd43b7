//! TCP sockets on the control plane, tracked from the moment they exist.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::descriptors;
use super::gate::section;
use super::tracked::Tracked;

/// Connects to `address`; the caller sets a limit.
pub async fn connect(address: SocketAddr) -> io::Result<Tracked<TcpStream>> {
    connect_from(None, address).await
}

/// As [`connect`], from the local address `from`.
pub async fn connect_from(from: Option<IpAddr>, address: SocketAddr) -> io::Result<Tracked<TcpStream>> {
    // tokio's own connect shows the socket only once it is connected.
    let stream = Tracked::open(|| begin(from, &address))?;
    stream.writable().await?;
    match stream.take_error()? {
        None => Ok(stream),
        Some(error) => Err(error),
    }
}

/// One that is not connected yet.
fn socket(from: Option<IpAddr>, address: &SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(*address), kind, Some(Protocol::TCP))?;
    if let Some(from) = from {
        descriptors::choose_port_late(socket.as_fd());
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(socket)
}

fn begin(from: Option<IpAddr>, address: &SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(from, address)?;
    match socket.connect(&(*address).into()) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    }
}

/// Accepts a connection of `listener`.
pub async fn accept(listener: &TcpListener) -> io::Result<(Tracked<TcpStream>, SocketAddr)> {
    let mut from = None;
    let stream = poll_fn(|context| {
        let _section = section();
        // In here, because only the future knows when it accepts.
        let polled = listener.poll_accept(context);
        polled.map(|accepted| {
            let (stream, peer) = accepted?;
            from = Some(peer);
            Tracked::open(|| Ok(stream))
        })
    })
    .await?;
    from.map(|from| (stream, from)).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
}

/// A connection for crates that read and write by themselves. It does not offer vectored writes: they raise SIGPIPE.
pub struct Stream(pub Tracked<TcpStream>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_from_an_address_has_its_port_when_it_connects() {
        let from = IpAddr::from([127, 0, 0, 1]);
        // Bound as in `begin`, and not connected yet.
        let socket = socket(Some(from), &SocketAddr::new(from, 1)).unwrap();
        let bound = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!((bound.ip(), bound.port()), (from, 0));
    }
}
