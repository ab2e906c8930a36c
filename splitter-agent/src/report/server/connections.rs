//! A listener that no client can exhaust: connections are few, short, and the oldest makes way.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Most connections at a time.
const MOST: usize = 64;

/// How long a connection may last: a request, and its answer.
const LIFETIME: Duration = Duration::from_secs(10);

/// A listener with bounds.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    open: Arc<Open>,
}

/// A connection that ends when its time is up, or when it has to make way.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    dismissed: oneshot::Receiver<()>,
    number: u64,
    open: Arc<Open>,
}

/// Who is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The connections that are open.
#[derive(Debug, Default)]
struct Open(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Number of the youngest connection.
    last: u64,
    /// In the order of their age. Dropping a sender tells the connection to make way.
    connections: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            open: Arc::default(),
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // axum's own loop: it waits when descriptors are short.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let (number, dismissed) = self.open.enter();
        let connection = Connection {
            stream,
            deadline: Box::pin(tokio::time::sleep(LIFETIME)),
            dismissed,
            number,
            open: Arc::clone(&self.open),
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, Bounded>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Open {
    /// Notes a new connection. If there are too many, the oldest makes way: answers take
    /// milliseconds, so that one is waiting for a client that is slow or says nothing.
    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (dismiss, dismissed) = oneshot::channel();
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        if open.connections.len() >= MOST {
            open.connections.pop_front();
        }
        open.connections.push_back((number, dismiss));
        (number, dismissed)
    }

    fn leave(&self, number: u64) {
        self.lock()
            .connections
            .retain(|(other, _)| *other != number);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every write is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// An error if the connection is over; otherwise the polling task is woken when it is.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(context).is_ready()
            || Pin::new(&mut self.dismissed).poll(context).is_ready()
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.leave(self.number);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
