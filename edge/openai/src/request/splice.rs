//! Replacing ranges of a body without copying the rest.

use std::ops::Range;

use bytes::Bytes;

use super::members::Members;

/// One range of the body and what takes its place. An empty range inserts, an empty replacement removes.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) replacement: Bytes,
}

impl Edit {
    pub(super) fn replace(range: Range<usize>, replacement: impl Into<Bytes>) -> Self {
        Self { range, replacement: replacement.into() }
    }

    pub(super) fn insert(at: usize, text: &'static str) -> Self {
        Self::replace(at..at, text)
    }
}

/// Removes the members for which `remove` holds, with the commas that go with them. At least one other member must
/// remain if something is inserted at the start of the object.
pub(super) fn remove_members(members: &Members, edits: &mut Vec<Edit>, remove: impl Fn(&str) -> bool) {
    // End of the member before, once one remains: from there on each removed member takes the comma before it along;
    // until then, the comma behind it.
    let mut previous_end = None;
    let mut list = members.list.iter().peekable();
    while let Some(member) = list.next() {
        if member.name.is_some_and(&remove) {
            let range = match (previous_end, list.peek()) {
                (Some(end), _) => end..member.value.end,
                (None, Some(next)) => member.key.start..next.key.start,
                (None, None) => member.key.start..member.value.end,
            };
            edits.push(Edit::replace(range, Bytes::new()));
            previous_end = previous_end.map(|_| member.value.end);
        } else {
            previous_end = Some(member.value.end);
        }
    }
}

/// The body with all edits made, as slices of it and replacements in turn; none is empty. Edits must not overlap.
pub(super) fn splice(body: &Bytes, mut edits: Vec<Edit>) -> Vec<Bytes> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut pieces = Vec::with_capacity(edits.len() * 2 + 1);
    let mut at = 0;
    for edit in edits {
        debug_assert!(at <= edit.range.start, "edits overlap");
        pieces.push(body.slice(at..edit.range.start));
        pieces.push(edit.replacement);
        at = edit.range.end;
    }
    pieces.push(body.slice(at..));
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
