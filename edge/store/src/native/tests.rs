use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Gives credentials that are good for so long, as often as it is asked; or none; or does not answer.
#[derive(Clone, Debug)]
struct Source {
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    GoodFor(Duration),
    None,
    Never,
}

impl Source {
    fn new(answer: Answer) -> (Self, KeptCredentials<Self>) {
        let source = Self { asked: Arc::default(), answer: Arc::new(Mutex::new(answer)) };
        (source.clone(), KeptCredentials::new(source))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = *self.answer.lock().unwrap();
        future::ProvideCredentials::new(async move {
            match answer {
                Answer::GoodFor(time) => {
                    let end = Some(SystemTime::now() + time);
                    Ok(Credentials::new(number.to_string(), "secret", None, end, "test"))
                }
                Answer::None => Err(CredentialsError::not_loaded("nowhere")),
                Answer::Never => std::future::pending().await,
            }
        })
    }
}

/// Which of the source's answers is in use.
async fn number(kept: &KeptCredentials<Source>) -> String {
    kept.current().await.unwrap().access_key_id().to_owned()
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn credentials_are_fetched_once_for_all_who_wait() {
    let (source, kept) = Source::new(Answer::GoodFor(HOUR));
    let numbers = futures_util::future::join_all((0..50).map(|_| number(&kept))).await;
    assert!(numbers.iter().all(|number| number == "1"));
    assert_eq!((number(&kept).await.as_str(), source.asked()), ("1", 1));
}

#[tokio::test(start_paused = true)]
async fn those_that_end_soon_serve_while_new_ones_are_fetched() {
    let (source, kept) = Source::new(Answer::GoodFor(AHEAD / 2));
    assert_eq!(number(&kept).await, "1");
    source.answer(Answer::Never);
    // The attempt just made is not repeated at once.
    assert_eq!((number(&kept).await.as_str(), source.asked()), ("1", 1));
    tokio::time::sleep(PAUSE).await;
    assert_eq!(number(&kept).await, "1", "nobody waits for an attempt that hangs");
    tokio::time::sleep(PAUSE).await;
    source.answer(Answer::GoodFor(HOUR));
    assert_eq!(number(&kept).await, "1");
    tokio::task::yield_now().await;
    assert_eq!((number(&kept).await.as_str(), source.asked()), ("3", 3));
}

#[tokio::test(start_paused = true)]
async fn those_that_are_over_are_not_used() {
    let (source, kept) = Source::new(Answer::GoodFor(Duration::ZERO));
    number(&kept).await;
    source.answer(Answer::Never);
    tokio::time::sleep(PAUSE).await;
    let began = Instant::now();
    kept.current().await.unwrap_err();
    assert_eq!(began.elapsed(), LOAD_WITHIN, "the wait has an end");
    source.answer(Answer::GoodFor(HOUR));
    tokio::time::sleep(PAUSE).await;
    assert_eq!(number(&kept).await, "3");
}

#[tokio::test(start_paused = true)]
async fn a_source_without_credentials_is_not_asked_at_every_request() {
    let (source, kept) = Source::new(Answer::None);
    for _ in 0..10 {
        assert!(reason(&kept.current().await.unwrap_err()).contains("nowhere"));
    }
    assert_eq!(source.asked(), 1);
    tokio::time::sleep(PAUSE).await;
    source.answer(Answer::GoodFor(HOUR));
    assert_eq!(number(&kept).await, "2");
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_attempt() {
    let (source, kept) = Source::new(Answer::GoodFor(HOUR));
    assert!(kept.current().now_or_never().is_none());
    tokio::task::yield_now().await;
    assert_eq!((number(&kept).await.as_str(), source.asked()), ("1", 1));
}
