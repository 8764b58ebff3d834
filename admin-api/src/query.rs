//! The query of a URL, read strictly: what is mistyped is named, not passed over.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Display;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::AdminError;
use crate::members::Details;
use crate::moment::Moment;

/// The parameters of a query; an extractor. Ask for each of those that a route has, then [`finish`](Self::finish).
#[derive(Debug, Default)]
pub(crate) struct Query {
    given: BTreeMap<String, String>,
    known: Vec<&'static str>,
    details: Details,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// 1 to 100.
    pub(crate) limit: usize,
    /// Where the page before ended, as its list gave it.
    pub(crate) cursor: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    #[schema(pattern = "^list$", example = "list")]
    pub(crate) object: &'static str,
    pub(crate) data: Vec<T>,
    /// `cursor` for the next page; null where there are no more.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

impl<T> List<T> {
    pub(crate) fn new(data: Vec<T>, next_cursor: Option<String>) -> Self {
        Self { object: "list", data, next_cursor }
    }

    /// A page of what is in memory as a whole, sorted by what `name` gives. The cursor is the last name of the page
    /// before: whatever comes and goes in between, nothing else is left out or shown twice.
    pub(crate) fn page_of(all: Vec<T>, page: &Page, name: impl Fn(&T) -> String) -> Self {
        let is_next = |item: &T| page.cursor.as_ref().is_none_or(|cursor| name(item) > *cursor);
        let mut data: Vec<T> = all.into_iter().filter(is_next).take(page.limit + 1).collect();
        let has_more = data.len() > page.limit;
        data.truncate(page.limit);
        let next_cursor = data.last().filter(|_| has_more).map(&name);
        Self::new(data, next_cursor)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, AdminError> {
        let mut query = Self::default();
        for (name, value) in
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).take(MAX_PARAMETERS)
        {
            match query.given.entry(name.into_owned()) {
                Entry::Vacant(place) => {
                    place.insert(value.into_owned());
                }
                Entry::Occupied(place) => query.details.add(pointer(place.key()), "is given twice"),
            }
        }
        Ok(query)
    }
}

/// More than any route has; the rest would be unknown anyhow.
const MAX_PARAMETERS: usize = 32;

impl Query {
    pub(crate) fn text(&mut self, name: &'static str) -> Option<&str> {
        self.known.push(name);
        self.given.get(name).map(String::as_str)
    }

    /// A parameter that `read` understands; `wanted` says what it takes.
    pub(crate) fn read<T>(
        &mut self,
        name: &'static str,
        wanted: impl Display,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.text(name)?);
        if value.is_none() {
            self.details.add(pointer(name), format!("must be {wanted}"));
        }
        value
    }

    /// `true` or `false`; false if it is not given.
    pub(crate) fn flag(&mut self, name: &'static str) -> bool {
        let read = |text: &str| text.parse().ok();
        self.read(name, "true or false", read).unwrap_or(false)
    }

    pub(crate) fn moment(&mut self, name: &'static str) -> Option<Moment> {
        self.read(name, "a time as in RFC 3339, such as 2026-11-21T10:52:07Z", Moment::parse)
    }

    /// `limit` and `cursor`.
    pub(crate) fn page(&mut self) -> Page {
        const MAX: usize = 100;
        let read = |text: &str| text.parse().ok().filter(|limit| (1..=MAX).contains(limit));
        let limit = self.read("limit", format!("a whole number from 1 to {MAX}"), read).unwrap_or(50);
        Page { limit, cursor: self.text("cursor").map(str::to_owned) }
    }

    /// An error if a parameter was wrong, or is none that was asked for.
    pub(crate) fn finish(mut self) -> Result<(), AdminError> {
        let unknown: Vec<String> =
            self.given.into_keys().filter(|name| !self.known.contains(&name.as_str())).collect();
        for name in unknown {
            let known = match self.known.as_slice() {
                [] => "there are none here".to_owned(),
                known => format!("known are {}", known.join(", ")),
            };
            self.details.add(pointer(&name), format!("unknown query parameter; {known}"));
        }
        self.details.or(())
    }
}

fn pointer(name: &str) -> String {
    let name: String = name.chars().take(64).filter(|c| !c.is_control()).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}
