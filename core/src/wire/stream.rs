//! A connected byte stream, and what is to be written to it.
//!
//! Both kinds of socket look the same from here on; encryption would be one more kind. Whoever has
//! something to say writes it at once, on his own thread, as long as the socket takes it; only what
//! it does not take waits for a task. So a lone message costs no hand-over.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::frame::{self, Packet};
#[cfg(test)]
use super::simulated::Simulated;
use crate::error::{Error, ErrorCode};

/// Bytes that may wait for a peer that does not take them; beyond it the connection ends.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 << 20;
/// Room that a read has at least that begins with a new frame.
const READ_ROOM: usize = 16 << 10;
/// What a read buffer starts with.
const READ_BUFFER: usize = 64 << 10;
/// Over a connection on which nothing comes for so long the other machine is asked whether it is there,
/// and so often at this distance before it is given up.
const ASK_AFTER: Duration = Duration::from_secs(5);
const ASK_EVERY: Duration = Duration::from_secs(3);
const ASK_MAX: u32 = 4;
/// What was sent and is not acknowledged by the other machine for so long ends the connection.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// A socket of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Of a simulated network.
    #[cfg(test)]
    Simulated(Simulated),
}

impl Stream {
    /// A TCP connection as ours are: nothing waits to be sent, and a machine that vanished without a
    /// word is given up in seconds. By default that takes a quarter of an hour, during which every call
    /// to a node that has long been back would go into the void.
    pub(crate) fn tcp(stream: TcpStream) -> Stream {
        let _ = stream.set_nodelay(true);
        // None of this fails on a connected socket; where it does, only less is noticed.
        let _ = sockopt::set_tcp_keepidle(&stream, ASK_AFTER);
        let _ = sockopt::set_tcp_keepintvl(&stream, ASK_EVERY);
        let _ = sockopt::set_tcp_keepcnt(&stream, ASK_MAX);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        #[cfg(target_os = "linux")]
        let _ = sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MAX.as_millis() as u32);
        Stream::Tcp(stream)
    }

    /// # Errors
    /// `UNAVAILABLE`: nobody listens there.
    pub(crate) async fn connect(address: &str) -> Result<Stream, Error> {
        let connected = match address.starts_with('/') {
            #[cfg(test)]
            false if turmoil::in_simulation() => {
                Simulated::connect(address).await.map(Stream::Simulated)
            }
            true => UnixStream::connect(address).await.map(Stream::Unix),
            false => TcpStream::connect(address).await.map(Stream::tcp),
        };
        connected.map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    format!("nobody listens on {address}: start the server, or correct the address")
                }
                _ => format!("cannot connect to {address}: {error}"),
            };
            Error::new(ErrorCode::Unavailable, message).with_source(error)
        })
    }

    /// Lets the runtime go of it.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        match self {
            Stream::Tcp(stream) => stream.into_std().map(Detached::Tcp),
            Stream::Unix(stream) => stream.into_std().map(Detached::Unix),
            #[cfg(test)]
            Stream::Simulated(stream) => Ok(Detached::Simulated(stream)),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.readable().await,
            Stream::Unix(stream) => stream.readable().await,
            #[cfg(test)]
            Stream::Simulated(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.writable().await,
            Stream::Unix(stream) => stream.writable().await,
            #[cfg(test)]
            Stream::Simulated(stream) => stream.writable().await,
        }
    }

    fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read_buf(buffer),
            Stream::Unix(stream) => stream.try_read_buf(buffer),
            #[cfg(test)]
            Stream::Simulated(stream) => stream.try_read(buffer),
        }
    }

    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => {
                stream.try_io(Interest::WRITABLE, || write_quietly(stream, parts))
            }
            Stream::Unix(stream) => {
                stream.try_io(Interest::WRITABLE, || write_quietly(stream, parts))
            }
            #[cfg(test)]
            Stream::Simulated(stream) => stream.try_write(parts),
        }
    }
}

/// Writes as `writev` does, but a peer that is gone is an error and no SIGPIPE: a program in C that has
/// not asked for that signal to be ignored would die of it.
fn write_quietly(socket: &impl AsFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::NOSIGNAL;
    // There the standard library says it of each socket.
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::empty();
    Ok(sendmsg(socket, parts, &mut SendAncillaryBuffer::default(), flags)?)
}

/// A socket on its way from one runtime to another.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    #[cfg(test)]
    Simulated(Simulated),
}

impl Detached {
    /// Gives it to the runtime that this is called in.
    pub(crate) fn attach(self) -> io::Result<Stream> {
        match self {
            Detached::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Detached::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
            #[cfg(test)]
            Detached::Simulated(stream) => Ok(Stream::Simulated(stream)),
        }
    }
}

pub(super) fn io_error(error: io::Error) -> Error {
    let message = format!("the connection broke: {error}");
    Error::new(ErrorCode::Unavailable, message).with_source(error)
}

/// Reads frames.
pub(crate) struct Inbox {
    stream: Arc<Stream>,
    buffer: BytesMut,
}

impl Inbox {
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        Self::with(stream, BytesMut::with_capacity(READ_BUFFER))
    }

    /// Goes on behind what was received already.
    pub(crate) fn with(stream: Arc<Stream>, received: BytesMut) -> Self {
        Self { stream, buffer: received }
    }

    /// The stream, and what was received and not taken.
    pub(crate) fn into_parts(self) -> (Arc<Stream>, BytesMut) {
        (self.stream, self.buffer)
    }

    /// The next `len` bytes that are no frame.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the other side closed it, or it broke.
    pub(crate) async fn raw(&mut self, len: usize) -> Result<Bytes, Error> {
        while self.buffer.len() < len {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    /// The next frame.
    ///
    /// # Errors
    /// As [`raw`](Self::raw), and `TOO_LARGE` for lengths that no frame has.
    pub(crate) async fn frame(&mut self) -> Result<(u64, Packet), Error> {
        loop {
            if let Some(frame) = frame::take(&mut self.buffer)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// True when nothing more was read than what was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    async fn fill(&mut self) -> Result<(), Error> {
        let room = self.buffer.capacity() - self.buffer.len();
        // A frame that is on its way has the room that it needs, and more would move it.
        if room == 0 || (room < READ_ROOM && self.buffer.is_empty()) {
            self.buffer.reserve(READ_BUFFER);
        }
        loop {
            match self.stream.try_read(&mut self.buffer) {
                Ok(0) => {
                    let message = "the other side closed the connection";
                    return Err(Error::new(ErrorCode::Unavailable, message));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.readable().await.map_err(io_error)?;
                }
                Err(error) => return Err(io_error(error)),
            }
        }
    }
}

/// What is to be written, in order.
#[derive(Debug)]
pub(crate) struct Outbox {
    stream: Arc<Stream>,
    waiting: Mutex<Waiting>,
    wake: Notify,
    /// The connection broke, whoever noticed.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    parts: VecDeque<Bytes>,
    bytes: usize,
    broken: Option<Error>,
}

impl Outbox {
    pub(crate) fn new(stream: Arc<Stream>) -> Self {
        let (wake, ended) = (Notify::new(), Notify::new());
        Self { stream, waiting: Mutex::default(), wake, ended }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes bytes that are no frame.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Error> {
        self.write([bytes, &[], &[]], &[Bytes::copy_from_slice(bytes)])
    }

    /// Writes a frame, or lets it wait. Any thread.
    ///
    /// # Errors
    /// What broke the connection, now or before. The frame may have gone out in part.
    pub(crate) fn frame(&self, id: u64, packet: &Packet) -> Result<(), Error> {
        let prefix = packet.prefix(id);
        let later = [Bytes::new(), packet.head.clone(), packet.body.clone()];
        self.write([&prefix, &packet.head, &packet.body], &later)
    }

    /// Writes `now`; what the socket does not take waits as `later` (its first part is copied).
    fn write(&self, now: [&[u8]; 3], later: &[Bytes]) -> Result<(), Error> {
        let mut waiting = self.waiting();
        if let Some(error) = &waiting.broken {
            return Err(error.clone());
        }
        let mut written = 0;
        if waiting.parts.is_empty() {
            match self.stream.try_write(&now.map(IoSlice::new)) {
                Ok(count) => written = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.fail(&mut waiting, io_error(error))),
            }
        }
        let mut left = false;
        for (at, part) in now.iter().enumerate() {
            let done = written.min(part.len());
            written -= done;
            if done < part.len() {
                left = true;
                let rest = match later.get(at).filter(|bytes| bytes.len() == part.len()) {
                    Some(bytes) => bytes.slice(done..),
                    None => Bytes::copy_from_slice(&part[done..]),
                };
                waiting.bytes += rest.len();
                waiting.parts.push_back(rest);
            }
        }
        if waiting.bytes > OUTBOX_BYTES_MAX {
            let message = "the other side does not take what it asked for: the connection ends";
            return Err(self.fail(&mut waiting, Error::new(ErrorCode::Unavailable, message)));
        }
        drop(waiting);
        if left {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// True when everything was written that was to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting().parts.is_empty()
    }

    /// Nothing more is written.
    pub(crate) fn close(&self, why: Error) {
        self.fail(&mut self.waiting(), why);
    }

    /// The first failure stays; what waited will not go out, and nobody waits for the other side to
    /// take it.
    fn fail(&self, waiting: &mut Waiting, error: Error) -> Error {
        waiting.parts.clear();
        waiting.bytes = 0;
        self.ended.notify_one();
        waiting.broken.get_or_insert(error).clone()
    }

    /// Writes what waits, until the connection breaks.
    pub(crate) async fn run(&self) -> Error {
        let failed = |error| self.fail(&mut self.waiting(), io_error(error));
        let work = async {
            loop {
                self.wake.notified().await;
                while let Some(first) = self.first() {
                    if let Err(error) = self.stream.writable().await {
                        return failed(error);
                    }
                    match self.stream.try_write(&[IoSlice::new(&first)]) {
                        Ok(count) => self.waiting().advance(count),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return failed(error),
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = self.ended.notified() => {
                let broken = self.waiting().broken.clone();
                broken.expect("it is noted before anybody is told")
            }
            why = work => why,
        }
    }

    fn first(&self) -> Option<Bytes> {
        self.waiting().parts.front().cloned()
    }
}

impl Waiting {
    fn advance(&mut self, count: usize) {
        self.bytes = self.bytes.saturating_sub(count);
        if let Some(first) = self.parts.front_mut() {
            first.advance(count);
            if first.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_ends_of_a_connection_notice_when_the_other_machine_vanishes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (connected, accepted) = tokio::join!(Stream::connect(&address), listener.accept());
        for end in [connected.unwrap(), Stream::tcp(accepted.unwrap().0)] {
            let Stream::Tcp(socket) = end else { panic!("it is TCP") };
            assert!(socket.nodelay().unwrap());
            assert!(sockopt::socket_keepalive(&socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), ASK_AFTER);
            assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap(), ASK_EVERY);
            assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), ASK_MAX);
            #[cfg(target_os = "linux")]
            assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 20_000);
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_raises_no_signal() {
        let mut pipes =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::pipe()).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let stream = Stream::Unix(near);
        stream.writable().await.unwrap();
        let error = stream.try_write(&[IoSlice::new(b"anybody?")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // A signal would be there by the time that something else has gone through the runtime.
        let (near, far) = UnixStream::pair().unwrap();
        near.writable().await.unwrap();
        near.try_write(b"x").unwrap();
        far.readable().await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(pipes.recv())).is_pending());
    }
}
