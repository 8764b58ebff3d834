//! One request on a connection of its own: for starts, where a load generator would be in the way.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bench::{
    Fault,
    wire::{self, Behaviour},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to connect to a process that is starting.
const PAUSE: Duration = Duration::from_millis(1);

/// The time until the answer is there, from before the first attempt to connect, which is repeated.
pub(crate) fn first_answer(address: SocketAddr, model: &str, api_key: &str) -> Result<Duration, Fault> {
    let began = Instant::now();
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && began.elapsed() < PATIENCE => {
                thread::sleep(PAUSE);
            }
            Err(error) => return Err(format!("{address}: {error}").into()),
        }
    };
    exchange(stream, address, model, api_key)?;
    Ok(began.elapsed())
}

/// How long a request takes on a new connection.
pub(crate) fn answer(address: SocketAddr, model: &str, api_key: &str) -> Result<Duration, Fault> {
    let began = Instant::now();
    exchange(TcpStream::connect(address)?, address, model, api_key)?;
    Ok(began.elapsed())
}

fn exchange(mut stream: TcpStream, address: SocketAddr, model: &str, api_key: &str) -> Result<(), Fault> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let body = wire::request(model, false, 1_000);
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {api_key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        wire::PATH,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    if text.starts_with("HTTP/1.1 200 ") && text.contains("\"finish_reason\":\"stop\"") {
        return Ok(());
    }
    Err(format!("not the answer of {}: {text}", Behaviour::Whole.public_name()).into())
}
