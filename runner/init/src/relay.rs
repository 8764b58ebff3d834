//! The sandbox's way out: a port of its loopback that leads to the runner's Unix socket.
//!
//! The relay is a process of its own, and no child of the CLI's: it is started by a process that ends at once, so that
//! process 1 takes it over. It ends with the sandbox.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{Failure, during};

pub(crate) const LAUNCH: &str = "relay-launch";
pub(crate) const SERVE: &str = "relay-serve";

/// Further ones wait to be accepted. Each takes two threads, which count against the sandbox's limit of processes.
const MAX_CONNECTIONS: usize = 32;
const STACK_BYTES: usize = 64 * 1024;
/// Until more of what accepting needs may have become free; nothing tells when.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens, and leaves a process behind that serves. When this returns, connections are accepted.
pub(crate) fn start(port: u16, socket: &OsStr) -> Result<(), Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(during("relay: listening"))?;
    let status = this_program(LAUNCH, socket, Stdio::from(OwnedFd::from(listener)))?
        .status()
        .map_err(during("relay: starting"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("relay: starting: {status}"))) }
}

/// Starts the server and leaves it to process 1.
pub(crate) fn launch(socket: Option<OsString>) -> Result<(), Failure> {
    let socket = socket.ok_or_else(|| Failure::new("relay: no socket"))?;
    // Process 1 reaps it: this process ends now.
    this_program(SERVE, &socket, Stdio::inherit())?.spawn().map_err(during("relay: starting"))?;
    Ok(())
}

/// Serves the listener that is this process's stdin.
pub(crate) fn serve(socket: Option<OsString>) -> Result<(), Failure> {
    let socket: Arc<OsStr> = socket.ok_or_else(|| Failure::new("relay: no socket"))?.into();
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(during("relay: stdin"))?;
    let listener = TcpListener::from(listener);
    let slots = Slots::new(MAX_CONNECTIONS);
    loop {
        let slot = slots.acquire();
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) if is_shortage(&error) => {
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
            Err(error) => return Err(during("relay: accepting")(error)),
        };
        let socket = socket.clone();
        // Where no thread can be had the connection is closed: the CLI is at its limit of processes.
        let _ = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // A failure closes both ends, and is for them to tell.
            let _ = carry(&client, &socket);
            drop(slot);
        });
    }
}

/// Of file descriptors or memory (`accept(2)`): it passes when connections end, while a relay that ended would not come
/// back.
fn is_shortage(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

/// The environment stays behind: it may hold the run's token, and a relay has no use for it.
fn this_program(verb: &str, socket: &OsStr, stdin: Stdio) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe().map_err(during("relay: own path"))?);
    command.arg(verb).arg(socket).env_clear();
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Copies both ways until both are at their end.
fn carry(client: &TcpStream, socket: &OsStr) -> io::Result<()> {
    let upstream = UnixStream::connect(socket)?;
    client.set_nodelay(true)?;
    thread::scope(|scope| {
        let up = || {
            let copied = io::copy(&mut &*client, &mut &upstream);
            let end = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
            upstream.shutdown(end)
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, up)?;
        let copied = io::copy(&mut &upstream, &mut &*client);
        // Nobody listens to the client any more if its answer broke off.
        client.shutdown(if copied.is_ok() { Shutdown::Write } else { Shutdown::Both })
    })
}

/// A number of things that may be had at once.
struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Slot(Arc<Slots>);

impl Slots {
    fn new(free: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(free), freed: Condvar::new() })
    }

    fn acquire(self: &Arc<Self>) -> Slot {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(Arc::clone(self))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// A client's end and an upstream's end, with `carry` between.
    fn carried(name: &str) -> (TcpStream, UnixStream, thread::JoinHandle<io::Result<()>>) {
        let path = std::env::temp_dir().join(format!("dyad-relay-{}-{name}", std::process::id()));
        let upstream = UnixListener::bind(&path).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap().0;
        let socket = path.clone().into_os_string();
        let carrier = thread::spawn(move || carry(&accepted, &socket));
        let upstream = upstream.accept().unwrap().0;
        std::fs::remove_file(path).unwrap();
        (client, upstream, carrier)
    }

    #[test]
    fn an_end_of_one_direction_leaves_the_other_open() {
        let (mut client, mut upstream, carrier) = carried("half");
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut question = String::new();
        upstream.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        upstream.write_all(b"answer").unwrap();
        drop(upstream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        carrier.join().unwrap().unwrap();
    }

    #[test]
    fn bytes_come_before_the_end() {
        let (mut client, mut upstream, carrier) = carried("early");
        let mut byte = [0];
        for _ in 0..3 {
            client.write_all(b"?").unwrap();
            upstream.read_exact(&mut byte).unwrap();
            upstream.write_all(b"!").unwrap();
            client.read_exact(&mut byte).unwrap();
        }
        drop((client, upstream));
        // Whichever end closed first, the other may have been reset: both are closed.
        let _ = carrier.join().unwrap();
    }

    #[test]
    fn a_slot_is_waited_for() {
        let slots = Slots::new(1);
        let slot = slots.acquire();
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = thread::spawn({
            let (slots, order) = (Arc::clone(&slots), Arc::clone(&order));
            move || {
                let _slot = slots.acquire();
                order.lock().unwrap().push("acquired");
            }
        });
        order.lock().unwrap().push("released");
        drop(slot);
        waiting.join().unwrap();
        assert_eq!(*order.lock().unwrap(), ["released", "acquired"]);
        assert_eq!(*slots.free.lock().unwrap(), 1);
    }
}
