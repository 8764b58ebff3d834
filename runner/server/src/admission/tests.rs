use std::pin::Pin;

use futures_util::FutureExt as _;

use super::*;
use crate::testing::{MIB, capacity, cli_of};

const A_MINUTE: Duration = Duration::from_secs(60);

type Waiting = Pin<Box<dyn Future<Output = Result<Permit, Refusal>> + Send>>;

/// A request that has reached the queue.
fn ask(admission: &Arc<Admission>, caller: &str, cli: &Arc<Cli>) -> Waiting {
    let (admission, caller, cli) = (Arc::clone(admission), caller.to_owned(), Arc::clone(cli));
    let deadline = Instant::now() + A_MINUTE;
    let mut waiting: Waiting = Box::pin(async move { admission.admit(&caller, &cli, deadline).await });
    assert!((&mut waiting).now_or_never().is_none(), "it should have to wait");
    waiting
}

fn now(waiting: &mut Waiting) -> Option<Permit> {
    waiting.now_or_never().map(|admitted| admitted.expect("admitted"))
}

fn admit(admission: &Arc<Admission>, caller: &str, cli: &Arc<Cli>) -> Result<Permit, Refusal> {
    let deadline = Instant::now() + A_MINUTE;
    admission.admit(caller, cli, deadline).now_or_never().expect("decided at once")
}

fn refused(admission: &Arc<Admission>, caller: &str, cli: &Arc<Cli>) -> Refusal {
    admit(admission, caller, cli).err().expect("refused")
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_is_taken_at_once_and_given_back_on_drop() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let permit = admit(&admission, "a", &cli).unwrap();
    assert_eq!((admission.running(), admission.queued()), (1, 0));
    let mut next = ask(&admission, "a", &cli);
    assert_eq!((admission.running(), admission.queued()), (1, 1));
    drop(permit);
    let next = now(&mut next).expect("its turn");
    assert_eq!((admission.running(), admission.queued()), (1, 0));
    drop(next);
    assert_eq!((admission.running(), admission.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_take_turns_and_within_a_caller_the_first_comes_first() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let mut running = admit(&admission, "a", &cli).unwrap();
    let mut waiting = ["a1", "a2", "a3", "b1", "c1", "b2"]
        .map(|name| (name, ask(&admission, &name[..1], &cli)))
        .into_iter()
        .collect::<Vec<_>>();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        drop(running);
        let at = waiting
            .iter_mut()
            .enumerate()
            .find_map(|(at, (_, waiting))| Some((at, now(waiting)?)))
            .expect("somebody's turn");
        order.push(waiting.remove(at.0).0);
        running = at.1;
    }
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_and_each_callers_part_of_it_are_bounded() {
    let admission = Admission::new(CapacityLimits { runs: 1, queue: 3, queue_per_caller: 2, ..capacity() });
    let cli = cli_of("echo", 1);
    let _running = admit(&admission, "a", &cli).unwrap();
    let _queue = [ask(&admission, "a", &cli), ask(&admission, "a", &cli)];
    let refusal = refused(&admission, "a", &cli);
    assert_eq!(refusal.code, RefusalCode::Saturated);
    assert!(refusal.message.contains("this caller"), "{}", refusal.message);
    let _third = ask(&admission, "b", &cli);
    let refusal = refused(&admission, "c", &cli);
    assert_eq!(refusal.code, RefusalCode::Saturated);
    assert!(refusal.message.contains("queue of this node"), "{}", refusal.message);
    assert_eq!(admission.queued(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_at_once() {
    let admission = Admission::new(CapacityLimits { runs: 1, queue: 2, ..capacity() });
    let cli = cli_of("echo", 1);
    let running = admit(&admission, "a", &cli).unwrap();
    let gone = ask(&admission, "b", &cli);
    let mut stays = ask(&admission, "c", &cli);
    drop(gone);
    assert_eq!(admission.queued(), 1);
    let _again = ask(&admission, "b", &cli);
    drop(running);
    assert!(now(&mut stays).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slot_given_to_one_that_has_just_gone_is_not_lost() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let running = admit(&admission, "a", &cli).unwrap();
    let gone = ask(&admission, "b", &cli);
    let mut stays = ask(&admission, "c", &cli);
    // The slot is b's now, but b never looks.
    drop(running);
    assert_eq!((admission.running(), admission.queued()), (1, 1));
    drop(gone);
    assert!(now(&mut stays).is_some());
    assert_eq!((admission.running(), admission.queued()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_sum_of_memory_is_bounded_and_nobody_overtakes() {
    let admission = Admission::new(CapacityLimits { runs: 10, memory_bytes: 100 * MIB, ..capacity() });
    let (small, large) = (cli_of("small", 40), cli_of("large", 80));
    let first = admit(&admission, "a", &small).unwrap();
    let second = admit(&admission, "a", &small).unwrap();
    let mut needs_both = ask(&admission, "b", &large);
    let mut would_not_fit = ask(&admission, "c", &small);
    drop(first);
    assert!(now(&mut needs_both).is_none());
    assert!(now(&mut would_not_fit).is_none(), "60 MiB are free, but it is not its turn");
    drop(second);
    let large = now(&mut needs_both).expect("its turn");
    assert!(now(&mut would_not_fit).is_none(), "only 20 MiB are free");
    drop(large);
    assert!(now(&mut would_not_fit).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_blocks_the_others_and_leaves_lets_them_go() {
    let admission = Admission::new(CapacityLimits { runs: 10, memory_bytes: 100 * MIB, ..capacity() });
    let _running = admit(&admission, "a", &cli_of("small", 40)).unwrap();
    let blocks = ask(&admission, "b", &cli_of("large", 80));
    let mut fits = ask(&admission, "c", &cli_of("small", 40));
    drop(blocks);
    assert!(now(&mut fits).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_wait() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let _running = admit(&admission, "a", &cli).unwrap();
    let begun = Instant::now();
    let refusal = admission.admit("b", &cli, begun + A_MINUTE).await.err().unwrap();
    assert_eq!(refusal.code, RefusalCode::Timeout);
    assert_eq!(begun.elapsed(), A_MINUTE);
    assert_eq!(admission.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_those_who_wait_and_those_who_come() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let running = admit(&admission, "a", &cli).unwrap();
    let mut waits = ask(&admission, "b", &cli);
    admission.drain();
    let refusal = (&mut waits).now_or_never().expect("told at once").err().unwrap();
    assert_eq!(refusal.code, RefusalCode::Draining);
    assert_eq!(refused(&admission, "c", &cli).code, RefusalCode::Draining);
    assert_eq!((admission.running(), admission.queued()), (1, 0));
    drop(running);
    assert_eq!(admission.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_given_before_a_drain_to_one_that_never_looks_is_given_back() {
    let admission = Admission::new(CapacityLimits { runs: 1, ..capacity() });
    let cli = cli_of("echo", 1);
    let running = admit(&admission, "a", &cli).unwrap();
    let waits = ask(&admission, "b", &cli);
    drop(running);
    admission.drain();
    assert_eq!(admission.running(), 1);
    drop(waits);
    assert_eq!(admission.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_comes_from_measured_runs_and_the_queue() {
    let limits = CapacityLimits { runs: 2, queue: 3, queue_per_caller: 3, ..capacity() };
    let admission = Admission::new(limits);
    let cli = cli_of("echo", 1);
    let wait = async |queue: usize| {
        let _slots = [admit(&admission, "a", &cli).unwrap(), admit(&admission, "a", &cli).unwrap()];
        let _queue = (0..queue).map(|_| ask(&admission, "a", &cli)).collect::<Vec<_>>();
        refused(&admission, "a", &cli).retry_after_ms.unwrap()
    };
    // Nothing measured: 5 s each, four of them (three wait, one asks) on two slots.
    assert_eq!(wait(3).await, 10_000);

    let run = async |took: Duration| {
        let permit = admit(&admission, "a", &cli).unwrap();
        tokio::time::advance(took).await;
        drop(permit);
    };
    // The slots of the refusal above were held for no time, and count.
    for _ in 0..60 {
        run(Duration::from_secs(2)).await;
    }
    let learnt = wait(3).await;
    assert!((3_900..=4_000).contains(&learnt), "{learnt}");
    for _ in 0..60 {
        run(Duration::from_millis(1)).await;
    }
    assert_eq!(wait(3).await, 1_000, "never less than a second");
    for _ in 0..60 {
        run(Duration::from_secs(600)).await;
    }
    assert_eq!(wait(3).await, 55_000, "never a minute or more");
}
