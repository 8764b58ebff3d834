//! Counters and slots of limits, each call of the port one `UpdateItem` wherever nobody is in the way.
//!
//! No transaction and no version: every condition is about the very numbers that the update changes, so instances that
//! write to one item at once do not have to try again because of each other. A condition that fails brings the item
//! along, so that no read is needed either.
//!
//! | call | `UpdateItem` | if |
//! |---|---|---|
//! | `take` | `ADD taken (need + extra)` | `taken` is absent or at most `limit - need`; granted is what stayed within the limit |
//! | `charge` | `ADD taken amount` | |
//! | `give_back` | `ADD taken -amount`, sent once whatever becomes of it | `taken >= amount`, so that a counter that is gone does not begin below zero |
//! | `hold` | `SET` or `REMOVE` the holder's own attribute and those that have expired, `ADD held` the difference | the attributes are as they were thought to be, and `held` leaves room for the difference |
//!
//! Every condition says besides that the item is of this schema, or is not there. A slots item that is damaged is put
//! right by whoever comes upon it, as far as its holders can be read, and the call fails as `Unreadable` that once: the
//! item is named, and the next call finds it well. What a counter stood at nobody knows; it is left to the next window.
//!
//! A request that the SDK repeats because its answer was lost has taken twice; that wastes and never exceeds.

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};
use catalog::{
    Ask, BoxFuture, Counter, Held, Hold, LeftOut, LimitStore, Period, Quantity, StoreError, Taken,
};

use crate::DynamoStore;
use crate::error::{broken, store_error, unavailable};
use crate::item::{self, Item, PK, SCHEMA_VERSION, SK, TTL};

const TAKEN: &str = "taken";
/// How many slots all holders have together.
const HELD: &str = "held";
/// Before the name of a holder, whose slots and time are a map of its own.
const HOLDER: &str = "holder_";
const SLOTS: &str = "SLOTS";
pub(crate) const OF_THIS_SCHEMA: &str = "(attribute_not_exists(#schema) OR #schema = :schema)";

/// How often slots are asked for anew because others took or gave some meanwhile.
const MAX_TRIES: usize = 8;
/// Expired holders that one update removes; the rest goes with the next.
const MAX_REMOVED: usize = 32;
/// As many expired holders are removed though there is room without.
const SWEPT_FROM: usize = 8;

/// What became of an update with a condition.
pub(crate) enum Updated {
    /// The item as it is now.
    Done(Item),
    /// The item as it is, with which the condition does not agree.
    Refused(Item),
}

impl DynamoStore {
    fn update(&self, pk: String, sk: String, forget_after_ms: u64) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key(PK, item::string(pk))
            .key(SK, item::string(sk))
            .expression_attribute_names("#schema", SCHEMA_VERSION)
            .expression_attribute_values(":schema", item::schema())
            .expression_attribute_names("#ttl", TTL)
            .expression_attribute_values(
                ":ttl",
                item::number(forget_after_ms.saturating_add(Counter::KEPT_MS) / 1_000),
            )
    }

    /// An addition to a counter; who sends it adds `:amount`, and a condition.
    fn add(&self, counter: &Counter) -> UpdateItemFluentBuilder {
        self.update(limits_of(counter.key.as_str()), sort_key(counter), counter.end_ms())
            .update_expression("SET #schema = :schema, #ttl = :ttl ADD #taken :amount")
            .expression_attribute_names("#taken", TAKEN)
    }

    async fn try_hold(&self, hold: &Hold<'_>, seen: &Slots, wanted: u32) -> Result<Updated, StoreError> {
        let expired = &seen.expired[..seen.expired.len().min(MAX_REMOVED)];
        let freed: u32 = expired.iter().map(|holder| holder.held.slots).sum();
        let delta = i64::from(wanted) - i64::from(seen.own.slots) - i64::from(freed);

        let forget_after_ms = hold.wanted.until_ms.max(hold.now_ms);
        let mut request = self.update(limits_of(hold.key.as_str()), SLOTS.to_owned(), forget_after_ms);
        let mut set = vec!["#schema = :schema".to_owned(), "#ttl = :ttl".to_owned()];
        let mut remove = Vec::new();
        let mut conditions = vec![OF_THIS_SCHEMA.to_owned()];
        if seen.own.slots == 0 {
            conditions.push("attribute_not_exists(#own)".to_owned());
        } else {
            conditions.push("#own = :known".to_owned());
            request = request.expression_attribute_values(":known", from_held(seen.own));
        }
        if wanted > seen.own.slots {
            // Nothing is freed in an item that is not there.
            let is_new = seen.own.slots == 0 && expired.is_empty();
            let unless_new = if is_new { format!("attribute_not_exists({PK}) OR ") } else { String::new() };
            conditions.push(format!("({unless_new}#held <= :room)"));
            let room = i64::from(hold.limit) - delta;
            request = request.expression_attribute_values(":room", AttributeValue::N(room.to_string()));
        }
        if wanted == 0 {
            remove.push("#own".to_owned());
        } else {
            set.push("#own = :own".to_owned());
            let own = Held { slots: wanted, ..hold.wanted };
            request = request.expression_attribute_values(":own", from_held(own));
        }
        for (index, holder) in expired.iter().enumerate() {
            remove.push(format!("#gone{index}"));
            conditions.push(format!("#gone{index} = :gone{index}"));
            request = request
                .expression_attribute_names(format!("#gone{index}"), &holder.attribute)
                .expression_attribute_values(format!(":gone{index}"), from_held(holder.held));
        }
        let mut update = format!("SET {} ADD #held :delta", set.join(", "));
        if !remove.is_empty() {
            update = format!("{update} REMOVE {}", remove.join(", "));
        }
        request
            .update_expression(update)
            .condition_expression(conditions.join(" AND "))
            .expression_attribute_names("#own", format!("{HOLDER}{}", hold.holder))
            .expression_attribute_names("#held", HELD)
            .expression_attribute_values(":delta", AttributeValue::N(delta.to_string()))
            .send_conditional(ReturnValue::AllNew)
            .await
    }

    async fn hold_slots(&self, hold: Hold<'_>) -> Result<u32, StoreError> {
        if hold.holder.is_empty() || !hold.holder.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(StoreError::Refused { reason: "a holder's name has letters and digits".to_owned() });
        }
        // As it would be if the holder were right, and nobody in the way.
        let mut seen = Slots { own: hold.known, others: 0, expired: Vec::new() };
        let mut wanted = seen.grantable(&hold);
        for _ in 0..MAX_TRIES {
            if wanted == 0 && seen.own.slots == 0 {
                return Ok(0);
            }
            match self.try_hold(&hold, &seen, wanted).await? {
                Updated::Done(item) => {
                    seen = self.read_or_repair(&item, &hold).await?;
                    // Instances come and go, and where the limit is far away nobody else looks after them.
                    if seen.expired.len() >= SWEPT_FROM {
                        self.try_hold(&hold, &seen, wanted).await?;
                    }
                    return Ok(wanted);
                }
                Updated::Refused(item) => {
                    seen = self.read_or_repair(&item, &hold).await?;
                    wanted = seen.grantable(&hold);
                }
            }
        }
        Err(unavailable("other instances are in the way"))
    }

    async fn read_or_repair(&self, item: &Item, hold: &Hold<'_>) -> Result<Slots, StoreError> {
        let error = match Slots::read(item, hold) {
            Ok(slots) => return Ok(slots),
            Err(error) => error,
        };
        if is_of_this_schema(item) {
            self.repair_slots(item, hold).await?;
        }
        Err(error)
    }

    /// Makes the sum right, and removes what cannot be read; unless somebody was faster.
    async fn repair_slots(&self, item: &Item, hold: &Hold<'_>) -> Result<(), StoreError> {
        let holders = item.iter().filter(|(attribute, _)| attribute.starts_with(HOLDER));
        let (mut all, mut broken) = (0_u64, Vec::new());
        for (attribute, value) in holders {
            match to_held(value) {
                Some(held) => all += u64::from(held.slots),
                None => broken.push((attribute, value)),
            }
        }
        broken.truncate(MAX_REMOVED);
        let forget_after_ms = hold.wanted.until_ms.max(hold.now_ms);
        let mut request = self.update(limits_of(hold.key.as_str()), SLOTS.to_owned(), forget_after_ms);
        let mut conditions = vec![OF_THIS_SCHEMA.to_owned()];
        match item.get(HELD) {
            Some(held) => {
                conditions.push("#held = :seen".to_owned());
                request = request.expression_attribute_values(":seen", held.clone());
            }
            None => conditions.push("attribute_not_exists(#held)".to_owned()),
        }
        let mut update = "SET #schema = :schema, #ttl = :ttl, #held = :all".to_owned();
        for (index, (attribute, value)) in broken.iter().enumerate() {
            update = format!("{update}{} #broken{index}", if index == 0 { " REMOVE" } else { "," });
            conditions.push(format!("#broken{index} = :broken{index}"));
            request = request
                .expression_attribute_names(format!("#broken{index}"), *attribute)
                .expression_attribute_values(format!(":broken{index}"), (*value).clone());
        }
        request
            .update_expression(update)
            .condition_expression(conditions.join(" AND "))
            .expression_attribute_names("#held", HELD)
            .expression_attribute_values(":all", item::number(all))
            .send_conditional(ReturnValue::None)
            .await?;
        Ok(())
    }
}

impl LimitStore for DynamoStore {
    fn take<'a>(
        &'a self,
        counter: &'a Counter,
        ask: Ask,
        limit: u64,
    ) -> BoxFuture<'a, Result<Taken, StoreError>> {
        self.call(async move {
            let need = ask.need.max(1);
            let Some(most) = limit.checked_sub(need) else {
                return Ok(Taken { granted: 0, counted: 0, left: limit });
            };
            let amount = need.saturating_add(ask.extra);
            let updated = self
                .add(counter)
                .condition_expression(format!(
                    "{OF_THIS_SCHEMA} AND (attribute_not_exists(#taken) OR #taken <= :most)"
                ))
                .expression_attribute_values(":amount", item::number(amount))
                .expression_attribute_values(":most", item::number(most))
                .send_conditional(ReturnValue::UpdatedNew)
                .await?;
            let before = match updated {
                Updated::Done(item) => taken(&item, counter)?.saturating_sub(amount),
                Updated::Refused(item) => taken(&item, counter)?,
            };
            Ok(Taken::from_counter(before, ask, limit))
        })
    }

    fn charge<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(async move {
            let updated = self
                .add(counter)
                .condition_expression(OF_THIS_SCHEMA)
                .expression_attribute_values(":amount", item::number(amount))
                .send_conditional(ReturnValue::None)
                .await?;
            match updated {
                Updated::Done(_) => Ok(()),
                Updated::Refused(item) => Err(foreign(&item, counter.key.as_str(), &sort_key(counter))),
            }
        })
    }

    fn give_back<'a>(&'a self, counter: &'a Counter, amount: u64) -> BoxFuture<'a, Result<(), StoreError>> {
        self.call(async move {
            let once = aws_sdk_dynamodb::config::Builder::default().retry_config(RetryConfig::disabled());
            let sent = self
                .add(counter)
                // A counter that is gone must not begin below zero.
                .condition_expression(format!("{OF_THIS_SCHEMA} AND #taken >= :least"))
                .expression_attribute_values(":least", item::number(amount))
                .expression_attribute_values(":amount", AttributeValue::N(format!("-{amount}")))
                .customize()
                .config_override(once)
                .send()
                .await;
            match sent {
                Ok(_) => Ok(()),
                Err(error) if is_condition(&error) => Ok(()),
                Err(error) => Err(store_error(&error)),
            }
        })
    }

    fn hold<'a>(&'a self, hold: Hold<'a>) -> BoxFuture<'a, Result<u32, StoreError>> {
        self.call(self.hold_slots(hold))
    }

    fn clock_offset_ms(&self) -> i64 {
        self.clock.offset_ms()
    }
}

pub(crate) trait SendConditional {
    async fn send_conditional(self, returns: ReturnValue) -> Result<Updated, StoreError>;
}

impl SendConditional for UpdateItemFluentBuilder {
    async fn send_conditional(self, returns: ReturnValue) -> Result<Updated, StoreError> {
        let sent = self
            .return_values(returns)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(answer) => Ok(Updated::Done(answer.attributes.unwrap_or_default())),
            Err(SdkError::ServiceError(service)) if service.err().is_conditional_check_failed_exception() => {
                match service.into_err() {
                    UpdateItemError::ConditionalCheckFailedException(failed) => {
                        Ok(Updated::Refused(failed.item.unwrap_or_default()))
                    }
                    _ => Err(broken("an answer that contradicts itself")),
                }
            }
            Err(error) => Err(store_error(&error)),
        }
    }
}

fn is_condition<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}

/// The partition of a key's counters and slots: keys do not share one, so none can run hot for others.
fn limits_of(key: &str) -> String {
    format!("LIMIT#{key}")
}

fn sort_key(counter: &Counter) -> String {
    let quantity = match counter.quantity {
        Quantity::Requests => "REQUESTS",
        Quantity::Tokens => "TOKENS",
    };
    let period = match counter.period {
        Period::Minute => "MINUTE",
        Period::Day => "DAY",
        Period::Month => "MONTH",
    };
    format!("{quantity}#{period}#{}", counter.start_ms)
}

/// 0 in an item that is not there.
fn taken(item: &Item, counter: &Counter) -> Result<u64, StoreError> {
    if !is_of_this_schema(item) {
        return Err(foreign(item, counter.key.as_str(), &sort_key(counter)));
    }
    let Some(value) = item.get(TAKEN) else { return Ok(0) };
    number(value).ok_or_else(|| unreadable(counter.key.as_str(), &sort_key(counter), TAKEN))
}

fn number(value: &AttributeValue) -> Option<u64> {
    value.as_n().ok()?.parse().ok()
}

/// Parts of items do not tell; nor does one that is not there.
fn is_of_this_schema(item: &Item) -> bool {
    item.get(SCHEMA_VERSION).is_none_or(|version| *version == item::schema())
}

fn foreign(item: &Item, key: &str, sk: &str) -> StoreError {
    let schema = item.get(SCHEMA_VERSION).and_then(number);
    let reason = match schema {
        Some(schema) => format!("it was written by another version, with schema {schema}"),
        None => format!("attribute {SCHEMA_VERSION} is missing or of the wrong kind"),
    };
    StoreError::Unreadable(LeftOut::new(&format!("{}/{sk}", limits_of(key)), &reason))
}

fn unreadable(key: &str, sk: &str, attribute: &str) -> StoreError {
    let reason = format!("attribute {attribute} is missing or of the wrong kind");
    StoreError::Unreadable(LeftOut::new(&format!("{}/{sk}", limits_of(key)), &reason))
}

/// Who holds a key's slots.
#[derive(Debug)]
struct Slots {
    own: Held,
    others: u32,
    expired: Vec<Expired>,
}

#[derive(Debug)]
struct Expired {
    attribute: String,
    held: Held,
}

fn from_held(held: Held) -> AttributeValue {
    AttributeValue::M(Item::from([
        ("slots".to_owned(), item::number(held.slots.into())),
        ("until_ms".to_owned(), item::number(held.until_ms)),
    ]))
}

fn to_held(value: &AttributeValue) -> Option<Held> {
    let map = value.as_m().ok()?;
    let slots = u32::try_from(number(map.get("slots")?)?).ok()?;
    Some(Held { slots, until_ms: number(map.get("until_ms")?)? })
}

impl Slots {
    /// As many as are wanted and free, or held already.
    fn grantable(&self, hold: &Hold<'_>) -> u32 {
        hold.wanted.slots.min(hold.limit.saturating_sub(self.others).max(self.own.slots))
    }

    fn read(item: &Item, hold: &Hold<'_>) -> Result<Self, StoreError> {
        if !is_of_this_schema(item) {
            return Err(foreign(item, hold.key.as_str(), SLOTS));
        }
        let broken = |attribute: &str| unreadable(hold.key.as_str(), SLOTS, attribute);
        let mut slots = Self { own: Held::default(), others: 0, expired: Vec::new() };
        let mut all = 0_u64;
        for (attribute, value) in item {
            let Some(name) = attribute.strip_prefix(HOLDER) else { continue };
            let held = to_held(value).ok_or_else(|| broken(attribute))?;
            all += u64::from(held.slots);
            if name == hold.holder {
                slots.own = held;
            } else if held.until_ms > hold.now_ms {
                slots.others = slots.others.saturating_add(held.slots);
            } else {
                slots.expired.push(Expired { attribute: attribute.clone(), held });
            }
        }
        let held = item.get(HELD).map_or(Some(0), number);
        if held == Some(all) { Ok(slots) } else { Err(broken(HELD)) }
    }
}
