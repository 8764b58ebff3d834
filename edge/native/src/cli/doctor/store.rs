//! The store: where it is, whether it answers, what it has.

use catalog::{ApiKeyRecord, KeyStore as _, LeftOut, LimitStore as _, Store as _, StoreError};
use runner_api::Registry as _;
use store::StoreAccess;

use super::{Report, Verdict};
use crate::embedded::now_ms;
use crate::error_chain::error_chain;
use crate::output::count;
use crate::store_location::{OpenedStore, StoreLocation};

/// Whether the rest is worth a look.
pub(super) async fn examine(location: &StoreLocation, report: &mut Report) -> bool {
    let opened = match location.open().await {
        Ok(opened) => opened,
        Err(error) => {
            let advice = match location {
                StoreLocation::DataDir(_) => "Give another directory with --data-dir, or mend this one.",
                StoreLocation::DynamoDb { .. } => "",
            };
            report.add(Verdict::Fails, &error_chain(&error), advice);
            return false;
        }
    };
    // The first question: whether there is an answer at all.
    let left_out = match opened.store.config().await {
        Ok(snapshot) => snapshot.left_out,
        Err(error) => {
            report.add(Verdict::Fails, &error_chain(&opened.error(error)), "");
            return false;
        }
    };
    report.add(Verdict::Works, &location.to_string(), "");
    if let StoreLocation::DynamoDb { access, .. } = location {
        table(&opened, access, report).await;
        clock(&opened, report);
        if let Err(error) = opened.hasher().await {
            report.add(Verdict::Fails, &error_chain(&error), "'up' refuses to start without it.");
        }
        runners(&opened, report).await;
    }
    let mut unreadable = left_out;
    unreadable.extend(keys(&opened, report).await);
    for item in unreadable {
        report.add(
            Verdict::Hint,
            &format!("{} cannot be read: {}", item.name, item.reason),
            "It was written by another version, or is damaged; it is passed over.",
        );
    }
    true
}

/// Those that cannot be read.
async fn keys(opened: &OpenedStore, report: &mut Report) -> Vec<LeftOut> {
    let list = match opened.store.keys().await {
        Ok(list) => list,
        Err(StoreError::Denied { .. }) => {
            report.add(
                Verdict::Hint,
                "the credentials may not list the API keys",
                "Serving does not need it.",
            );
            return Vec::new();
        }
        Err(error) => {
            report.add(Verdict::Fails, &error_chain(&opened.error(error)), "");
            return Vec::new();
        }
    };
    match list.keys.iter().filter(|key| is_active(&key.value)).count() {
        0 if list.keys.is_empty() => report.add(
            Verdict::Hint,
            "there is no API key",
            "'dyad-gateway up' makes one on its first start; 'keys create' at any time.",
        ),
        0 => report.add(
            Verdict::Hint,
            "every API key is revoked or expired",
            "'dyad-gateway keys create' makes another.",
        ),
        active => report.add(Verdict::Works, &count(active, "API key"), ""),
    }
    list.left_out
}

fn is_active(key: &ApiKeyRecord) -> bool {
    key.revoked_at_ms.is_none() && key.expires_at_ms.is_none_or(|at| at > now_ms())
}

async fn table(opened: &OpenedStore, access: &StoreAccess, report: &mut Report) {
    match opened.store.table_state().await {
        Ok(Some(state)) if !state.has_our_keys => report.add(
            Verdict::Fails,
            &format!("{access} is another kind of table: its keys are not pk and sk"),
            "Name the right one with --table, or make one: 'dyad-gateway store init'.",
        ),
        Ok(Some(state)) if !state.items_expire => report.add(
            Verdict::Hint,
            "what has expired stays in the table for ever",
            "Turn on its time to live by the attribute ttl: with Terraform, or 'dyad-gateway store init --create'.",
        ),
        Ok(Some(_)) => report.add(Verdict::Works, "the table's keys and its time to live", ""),
        Ok(None) => report.add(Verdict::Fails, &format!("{access} was removed just now"), ""),
        Err(StoreError::Denied { .. }) => {
            report.add(
                Verdict::Hint,
                "the credentials may not describe the table",
                "Serving does not need it.",
            );
        }
        Err(error) => report.add(Verdict::Hint, &error_chain(&opened.error(error)), ""),
    }
}

/// After something has been asked: the answer says the time.
fn clock(opened: &OpenedStore, report: &mut Report) {
    let offset_s = opened.store.clock_offset_ms() / 1_000;
    if offset_s == 0 {
        report.add(Verdict::Works, "this machine's clock is the store's", "");
    } else {
        let (seconds, way) = (offset_s.unsigned_abs(), if offset_s > 0 { "behind" } else { "ahead of" });
        report.add(
            Verdict::Hint,
            &format!("this machine's clock is {seconds} s {way} the store's"),
            "Set it (NTP): API keys and certificates expire by it.",
        );
    }
}

async fn runners(opened: &OpenedStore, report: &mut Report) {
    let list = match opened.store.nodes().await {
        Ok(list) => list,
        Err(error) => {
            return report.add(
                Verdict::Hint,
                &format!("the runners of the table cannot be read: {error}"),
                "",
            );
        }
    };
    for node in &list.unreadable {
        report.add(
            Verdict::Hint,
            &format!("the runner {} cannot be read: {}", node.name, node.reason),
            "Runs are not sent to it.",
        );
    }
    let (current, gone): (Vec<_>, Vec<_>) =
        list.nodes.into_iter().partition(|node| node.expires_unix_ms > now_ms());
    let draining = current.iter().filter(|node| node.capacity.draining).count();
    let draining = if draining == 0 { String::new() } else { format!(", {draining} of them draining") };
    let gone = match gone.len() {
        0 => String::new(),
        gone => format!(", and {gone} that no longer answers for itself"),
    };
    let what = format!("{} in the table{draining}{gone}", count(current.len(), "runner"));
    report.add(Verdict::Works, &what, "");
}
