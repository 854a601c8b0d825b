//! Pipes in the kernel through which bulk passes from socket to socket without being copied.

use rustix::pipe::{PipeFlags, SpliceFlags};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::TcpStream;

/// Room of a pipe: what an unprivileged process may ask for, and as much as one pass moves.
const PIPE_BYTES: usize = 1 << 20;
/// Pipes per worker. Only connections that move bulk at this moment hold one; the others copy.
const PIPES_MAX: usize = 64;
/// Empty pipes kept for the next bulk.
const IDLE_MAX: usize = 8;

/// One pipe.
#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    room: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where many pipes are open already: a small one works too.
        let room = rustix::pipe::fcntl_setpipe_size(&into, PIPE_BYTES)
            .or_else(|_refused| rustix::pipe::fcntl_getpipe_size(&into))?;
        Ok(Pipe { out, into, room })
    }

    /// Moves what the socket has into the empty pipe; 0 is the socket's end.
    pub fn take_from(&self, socket: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(rustix::pipe::splice(socket, None, &self.into, None, self.room, flags)?)
    }

    /// Moves `bytes` of the pipe into the socket, or as many as it takes.
    pub fn give_to(&self, socket: &TcpStream, bytes: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(rustix::pipe::splice(&self.out, None, socket, None, bytes, flags)?)
    }
}

/// One worker's pipes.
#[derive(Debug, Default)]
pub struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
}

impl Pipes {
    /// A pipe, unless as many are lent as may be or the system gives none.
    pub fn lend(&self) -> Option<Pipe> {
        if self.lent.get() >= PIPES_MAX {
            return None;
        }
        let idle = self.idle.borrow_mut().pop();
        let pipe = idle.or_else(|| Pipe::new().ok())?;
        self.lent.set(self.lent.get() + 1);
        Some(pipe)
    }

    /// Takes a pipe back; `None` when it was closed because something was left in it.
    pub fn back(&self, pipe: Option<Pipe>) {
        self.lent.set(self.lent.get().saturating_sub(1));
        let mut idle = self.idle.borrow_mut();
        if let Some(pipe) = pipe
            && idle.len() < IDLE_MAX
        {
            idle.push(pipe);
        }
    }
}
