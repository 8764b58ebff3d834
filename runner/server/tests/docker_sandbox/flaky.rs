//! A Docker engine that is sometimes away: a socket in front of the real one's.

use std::path::PathBuf;
use std::sync::Arc;

use dyad_runner::config::model::RunnerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::support::TestNode;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Takes requests, passes nothing on.
    Stalled,
    /// Passes all on but the question for its abilities, as an engine with a stuck container does.
    Stuck,
    /// Breaks connections, those included that are open.
    Down,
}

#[derive(Clone)]
pub(crate) struct FlakyEngine(Arc<State>);

struct State {
    real: PathBuf,
    mood: watch::Sender<Mood>,
    /// Requests for new containers.
    creations: watch::Sender<usize>,
    /// Connections that were broken at once.
    refusals: watch::Sender<usize>,
}

impl FlakyEngine {
    /// In front of the node's engine, with a configuration that leads here.
    pub(crate) fn before(node: &TestNode) -> (Self, RunnerConfig) {
        let socket = node.config.state_dir.join("flaky.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let flaky = Self(Arc::new(State {
            real: node.config.engine.socket.clone(),
            mood: watch::Sender::new(Mood::Well),
            creations: watch::Sender::new(0),
            refusals: watch::Sender::new(0),
        }));
        tokio::spawn({
            let flaky = flaky.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(flaky.clone().serve(client));
                }
            }
        });
        let mut config = node.config.clone();
        config.engine.socket = socket;
        (flaky, config)
    }

    pub(crate) fn stall(&self) {
        self.0.mood.send_replace(Mood::Stalled);
    }

    pub(crate) fn get_stuck(&self) {
        self.0.mood.send_replace(Mood::Stuck);
    }

    pub(crate) fn break_down(&self) {
        self.0.mood.send_replace(Mood::Down);
    }

    pub(crate) fn recover(&self) {
        self.0.mood.send_replace(Mood::Well);
    }

    pub(crate) fn creations(&self) -> usize {
        *self.0.creations.borrow()
    }

    pub(crate) async fn wait_for_creations(&self, count: usize) {
        self.0.creations.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// While `meanwhile` goes on, which must not end.
    pub(crate) async fn wait_for_refusals(&self, count: usize, meanwhile: impl Future<Output = ()>) {
        let mut refusals = self.0.refusals.subscribe();
        let more = *refusals.borrow() + count;
        tokio::select! {
            seen = refusals.wait_for(|seen| *seen >= more) => drop(seen.unwrap()),
            () = meanwhile => panic!("it ended without the engine"),
        }
    }

    async fn serve(self, client: UnixStream) {
        let mut mood = self.0.mood.subscribe();
        if *mood.borrow() == Mood::Down {
            self.0.refusals.send_modify(|count| *count += 1);
            return;
        }
        let Ok(real) = UnixStream::connect(&self.0.real).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_real, to_real) = real.into_split();
        tokio::select! {
            _ = async { tokio::join!(self.carry(from_client, to_real), self.carry(from_real, to_client)) } => {}
            _ = mood.wait_for(|mood| *mood == Mood::Down) => {}
        }
    }

    async fn carry(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut mood = self.0.mood.subscribe();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let bytes = &buffer[..count];
            // A request begins a packet here.
            if bytes.starts_with(b"POST ") && bytes.windows(18).any(|part| part == b"/containers/create") {
                self.0.creations.send_modify(|count| *count += 1);
            }
            let is_for_info = bytes.starts_with(b"GET ") && bytes.windows(6).any(|part| part == b"/info ");
            let is_passed = |mood: &Mood| *mood != Mood::Stalled && !(*mood == Mood::Stuck && is_for_info);
            let _ = mood.wait_for(is_passed).await;
            if to.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}
