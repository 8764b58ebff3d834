//! A TCP proxy in front of a DynamoDB server that misbehaves as it is told, one request per connection.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Passes request and answer on.
    None,
    /// Closes the connection before anything was said.
    HangUp,
    /// Passes request and answer on, after this time.
    Slow(Duration),
    /// Reads the request and never answers.
    Silence,
    /// Passes the request on, and never the answer.
    LostAnswer,
    /// Answers what is not HTTP.
    NotHttp,
    /// Announces more than it sends.
    BrokenOff,
    Answer {
        status: u16,
        body: &'static str,
    },
}

#[derive(Debug)]
pub(crate) struct FaultProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    requests: AtomicUsize,
    /// Such as `GetItem`, of those that were passed on.
    operations: Mutex<Vec<String>>,
    plan: Mutex<Plan>,
}

#[derive(Debug)]
struct Plan {
    first: VecDeque<Fault>,
    then: Fault,
}

impl FaultProxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Mutex::new(Plan { first: VecDeque::new(), then: Fault::None });
        let shared =
            Arc::new(Shared { server, requests: AtomicUsize::new(0), operations: Mutex::default(), plan });
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(served.clone(), client));
            }
        });
        Self { address, shared }
    }

    /// From now on, `first` one by one, and `then` for ever.
    pub(crate) fn plan(&self, first: impl IntoIterator<Item = Fault>, then: Fault) {
        let plan = Plan { first: first.into_iter().collect(), then };
        *self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner) = plan;
        self.shared.requests.store(0, Ordering::SeqCst);
    }

    /// The operations that were passed on since the last time that they were asked for.
    pub(crate) fn take_operations(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.operations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Since the last plan.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

/// Errors end the connection, as they should.
async fn serve(shared: Arc<Shared>, mut client: TcpStream) -> io::Result<()> {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = {
        let mut plan = shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.first.pop_front().unwrap_or(plan.then)
    };
    if matches!(fault, Fault::HangUp) {
        return Ok(());
    }
    let request = read_request(&mut client).await?;
    let (status, body, announced) = match fault {
        Fault::None | Fault::LostAnswer | Fault::Slow(_) => {
            if let Fault::Slow(time) = fault {
                tokio::time::sleep(time).await;
            }
            shared.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation(&request));
            let mut server = TcpStream::connect(shared.server).await?;
            server.write_all(&request).await?;
            if !matches!(fault, Fault::LostAnswer) {
                tokio::io::copy(&mut server, &mut client).await?;
                return Ok(());
            }
            // The answer's first byte shows that the request took effect.
            server.read_u8().await?;
            return until_closed(&mut client).await;
        }
        Fault::Silence => return until_closed(&mut client).await,
        Fault::NotHttp => return client.write_all(b"\0\xffSSH-2.0-not-http\r\n\r\n").await,
        Fault::BrokenOff => (200, "{\"Item\":", 1_000),
        Fault::Answer { status, body } => (status, body, body.len()),
        Fault::HangUp => return Ok(()),
    };
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {announced}\r\n\r\n"
    );
    client.write_all(format!("{head}{body}").as_bytes()).await
}

async fn until_closed(client: &mut TcpStream) -> io::Result<()> {
    tokio::io::copy(client, &mut tokio::io::sink()).await?;
    Ok(())
}

/// `x-amz-target: DynamoDB_20120810.GetItem`
fn operation(request: &[u8]) -> String {
    let request = String::from_utf8_lossy(request);
    let target = request.lines().find_map(|line| line.strip_prefix("x-amz-target:"));
    target
        .and_then(|target| target.split_once('.'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

async fn read_request(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if client.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(head_end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..head_end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if request.len() >= head_end + 4 + length {
            return Ok(request);
        }
    }
}
