//! A socket of the network simulator `turmoil`, in the shape that this folder's sockets have.
//!
//! It lets the tests run the code of `stream.rs`, `tcp.rs` and `serve.rs` as it is, over a network that
//! loses, holds and delays what they are told. Nothing but tests is built with it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use turmoil::net::TcpStream;

/// A connection of the simulated network.
#[derive(Debug)]
pub(crate) struct Simulated(Mutex<TcpStream>);

impl Simulated {
    pub(crate) fn new(stream: TcpStream) -> Simulated {
        Simulated(Mutex::new(stream))
    }

    pub(super) async fn connect(address: &str) -> io::Result<Simulated> {
        TcpStream::connect(address).await.map(Simulated::new)
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        let peeked = poll_fn(|cx| self.stream().poll_peek(cx, &mut ReadBuf::new(&mut [0])));
        peeked.await.map(drop)
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let stream = self.stream();
            // Each look is a future of its own: none is kept while the stream is free.
            let writable = pin!(stream.writable());
            writable.poll(cx)
        })
        .await
    }

    pub(super) fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut chunk = vec![0; buffer.capacity() - buffer.len()];
        let mut read = ReadBuf::new(&mut chunk);
        let nobody = &mut Context::from_waker(Waker::noop());
        match Pin::new(&mut *self.stream()).poll_read(nobody, &mut read) {
            Poll::Ready(done) => done?,
            Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
        }
        buffer.extend_from_slice(read.filled());
        Ok(read.filled().len())
    }

    pub(super) fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        // An answer may be given, or dropped, when the simulation is over.
        if !turmoil::in_simulation() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (stream, mut written) = (self.stream(), 0);
        for part in parts {
            match stream.try_write(part) {
                Ok(count) => written += count,
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(written)
    }
}
