//! Pages of lists: a cursor is the key after which the next page begins.

use muster_runtime::auth::Principal;
use muster_runtime::page::{Asked, Budget, Sealer, TokenError};
use muster_runtime::status::Violations;
use prost::Message;
use tonic::Status;

/// A list call: where its page begins, and how long it may be.
pub(super) struct Page<'a> {
    scope: muster_runtime::page::Scope<'a>,
    size: usize,
    /// The key to begin after; empty is the start.
    pub(super) after: String,
}

/// What a page came to.
pub(super) struct Cut<T> {
    pub(super) items: Vec<T>,
    pub(super) next_page_token: String,
}

impl<'a> Page<'a> {
    /// Reads a request's paging fields, which are moved out of it; the rest binds the token.
    pub(super) fn open<M: Message>(
        sealer: &'a Sealer,
        method: &str,
        principal: &Principal,
        request: &mut M,
        take: impl FnOnce(&mut M, &mut Violations) -> Asked,
    ) -> Result<Self, Status> {
        let mut faults = Violations::new();
        let asked = take(request, &mut faults);
        faults.into_result()?;
        let scope = sealer.scope(method, principal.id(), request);
        let after = match scope.open(&asked.token)? {
            Some(cursor) => String::from_utf8(cursor.to_vec()).map_err(|_| TokenError::Mismatch)?,
            None => String::new(),
        };
        Ok(Self {
            scope,
            size: asked.size,
            after,
        })
    }

    /// Fills the page from items with their keys, in order of key.
    pub(super) fn fill<T: Message>(&self, items: impl Iterator<Item = (String, T)>) -> Cut<T> {
        let mut budget = Budget::new(self.size);
        let mut page = Vec::new();
        let mut last = String::new();
        let mut more = false;
        for (key, item) in items.skip_while(|(key, _)| *key <= self.after && !self.after.is_empty())
        {
            if budget.is_full() || !budget.admit(item.encoded_len()) {
                more = true;
                break;
            }
            page.push(item);
            last = key;
        }
        Cut {
            items: page,
            next_page_token: if more {
                self.scope.seal(last.as_bytes())
            } else {
                String::new()
            },
        }
    }
}
