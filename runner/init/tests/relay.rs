//! The relay as a process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, thread};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_shortage_of_file_descriptors_passes() {
    let path = std::env::temp_dir().join(format!("dyad-relay-{}", std::process::id()));
    let upstream = UnixListener::bind(&path).unwrap();
    // Each connection gets back what it says.
    thread::spawn(move || {
        for stream in upstream.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut relay = Command::new("sh")
        // Room for six connections: each takes two.
        .args(["-c", "ulimit -n 16; exec \"$0\" relay-serve \"$1\"", env!("CARGO_BIN_EXE_dyad-sandbox-init")])
        .arg(&path)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();

    let echo = |mut stream: &TcpStream| -> io::Result<u8> {
        let mut byte = [0];
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    let many: Vec<_> = (0..24).map(|_| TcpStream::connect(address).unwrap()).collect();
    let answered = many.iter().filter(|stream| echo(stream).is_ok()).count();
    assert!(answered < many.len(), "there was no shortage");
    drop(many);

    let deadline = Instant::now() + PATIENCE;
    loop {
        // Connections that have ended may still be in the way.
        match TcpStream::connect(address).and_then(|stream| echo(&stream)) {
            Ok(byte) => break assert_eq!(byte, b'?'),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => panic!("the relay has ended"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
    std::fs::remove_file(path).unwrap();
}
