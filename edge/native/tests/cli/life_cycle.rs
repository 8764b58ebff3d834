//! Start and end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use super::support::{Place, SOON, exchange};

#[test]
fn sigterm_drains_and_exits_with_0() {
    let place = Place::new();
    let gateway = place.up(&[]);
    // A request whose body is still on its way.
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let body = r#"{"model":"none","messages":[{"role":"user","content":"Hello"}]}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        gateway.first_key(),
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n", "the request is under way");

    let address = gateway.address();
    gateway.terminate();
    let attempt = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).err();
    super::support::eventually("no new connection is taken", attempt);
    let answer = exchange(stream, body.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("model_not_found"), "{answer}");
    let (status, log) = gateway.ended();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("drained"), "{log}");
}

#[test]
fn a_drain_that_takes_too_long_is_cut_off_and_says_so() {
    let place = Place::new();
    let gateway = place.up(&["--drain-timeout", "1"]);
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
        gateway.first_key()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 25]).unwrap();
    let terminated = Instant::now();
    gateway.terminate();
    let (status, log) = gateway.ended();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(terminated.elapsed() < Duration::from_secs(10), "the request was waited for all the same");
    assert!(log.contains("cut off"), "{log}");
}

#[test]
fn a_reader_that_leaves_does_not_end_the_gateway() {
    let place = Place::new();
    let first = place.up(&[]);
    let key = first.first_key().to_owned();
    first.stop();
    // What reads the greeting is gone before it is written.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut child =
        place.command(&["--listen", &address.to_string(), "--no-discovery"]).stdout(writer).spawn().unwrap();
    let request = format!(
        "GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    let stream = super::support::eventually("it serves", || TcpStream::connect(address).ok());
    let answer = exchange(stream, request.as_bytes());
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && running, "{answer}");
}

#[test]
fn a_docker_engine_that_hangs_keeps_nobody_waiting() {
    let mut place = Place::new();
    let socket = place.path("hung.sock");
    // Takes connections, and nobody ever reads from them.
    let _hung = UnixListener::bind(&socket).unwrap();
    place.set("DOCKER_HOST", &format!("unix://{}", socket.display()));
    place.set("DYAD_GATEWAY_NO_RUNNER", "false");
    let began = Instant::now();
    let gateway = place.up(&[]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let unusable = gateway.ready["unusable_providers"].to_string();
    assert!(unusable.contains("hung.sock does not answer"), "{unusable}");
    drop(gateway);
    let doctor = place.run(&["doctor", "--no-discovery"]);
    assert!(doctor.stdout.contains("Restart Docker") && !doctor.stdout.contains("apt-get"), "{doctor:#?}");
}
