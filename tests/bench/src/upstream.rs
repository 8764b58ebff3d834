//! The bare upstream: a process that answers as [`Behaviour`] says, as cheaply as it can.

use std::{convert::Infallible, io::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    stream::{iter, pending, unfold},
};
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep_until},
};

use crate::wire::{Behaviour, completion, events};

const PACE: Duration = Duration::from_millis(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is sent, made once.
struct Answers {
    whole: Bytes,
    paced: Arc<[Bytes]>,
    burst: Arc<[Bytes]>,
    hold: [Bytes; 2],
}

/// Serves until the parent goes away. Prints `PORT\n` once it listens.
pub async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;
    let hold = events(Behaviour::Hold.upstream_name());
    let answers = Arc::new(Answers {
        whole: completion(Behaviour::Whole.upstream_name()),
        paced: events(Behaviour::Paced.upstream_name()).into(),
        burst: events(Behaviour::Burst.upstream_name()).into(),
        hold: [hold[0].clone(), hold[1].clone()],
    });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        let service = service_fn(move |request| answer(Arc::clone(&answers), request));
        tokio::spawn(async move {
            // A connection that fails is the peer's affair: whoever measures notices the missing answer.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(answers: Arc<Answers>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(match Behaviour::asked_by(&body) {
        Some(Behaviour::Whole) => {
            let mut response = Response::new(Full::new(answers.whole.clone()).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        }
        Some(Behaviour::Paced) => event_stream(paced(Arc::clone(&answers.paced))),
        Some(Behaviour::Burst) => event_stream(iter(answers.burst.to_vec())),
        Some(Behaviour::Hold) => event_stream(iter(answers.hold.clone()).chain(pending())),
        None => {
            let mut response = Response::new(Full::new(Bytes::from_static(b"no such model")).boxed_unsync());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

/// One event at each multiple of [`PACE`] since the start, whatever the delays on the way.
fn paced(events: Arc<[Bytes]>) -> impl Stream<Item = Bytes> {
    unfold((0, Instant::now()), move |(at, due)| {
        let event = events.get(at).cloned();
        async move {
            let event = event?;
            sleep_until(due).await;
            Some((event, (at + 1, due + PACE)))
        }
    })
}

fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = events.map(|event| Ok(Frame::data(event)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    response
}
